"""Holds this project's methods against the same models of other libraries, on MovieLens-100K: make conformance.

Writes benches/results/conformance-<hardware>-<date>.md. Both sides train on the same sessions with the same settings,
and rank the same targets among all items outside their histories. A library's script runs in the environment that
`make conformance` has made in target/conformance/LIBRARY, and reads and writes the files of exchange.py. What has been
trained is kept in target/conformance/answers, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langptune_rs import evaluate
from langptune_rs.baselines.registry import find_method
from langptune_rs.config.data import DataConfig
from langptune_rs.data import Dataset, open_source
from langptune_rs.evaluation.tables import markdown_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from conformance.exchange import UNKNOWN, Answer, Exchange, read_answer, write_answer
from conformance.verdict import METRIC, Outcome, compare_scores
from peers.results import hardware, machine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "target" / "conformance"
DATA = DataConfig(source="ml-100k", windows="all", max_item_tokens=None, max_history_tokens=None)
"""All sessions of ML-100K, 4 items and a target, 84/8/8 by session."""

EPOCHS = {"max_epochs": 30, "patience": 10}
SASREC = {"hidden": 64, "num_blocks": 2, "num_heads": 1, "dropout": 0.1, "batch_size": 128, "learning_rate": 1e-3}
BERT4REC = {**SASREC, "num_heads": 2, "mask_probability": 0.5}
LIGHTGCN = {"dim": 64, "num_layers": 3, "learning_rate": 5e-3, "weight_decay": 1e-4, "batch_size": 2000}


@dataclass(frozen=True)
class Comparison:
    """One of this project's methods and a library's model."""

    method: str
    """The name in the registry."""
    settings: Mapping[str, Any]
    """What both sides are given; all of it is the method's `Config`."""
    library: str
    """Whose script with_LIBRARY.py is run."""
    model: str
    """The name that the script knows."""
    notes: str
    """How far the two are the same model."""
    ours_alone: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the library's model does not have."""
    theirs_alone: Mapping[str, Any] = field(default_factory=dict)
    """Settings that ours does not have, or other values."""


COMPARISONS = (
    Comparison("EASE", {"l2": 500.0}, "cornac", "EASE", "The same closed form."),
    Comparison(
        "ItemKNN",
        {"neighbours": 10_000, "shrinkage": 10.0},
        "recbole",
        "ItemKNN",
        "The same model with all neighbours: cosine with shrinkage, summed over the history.",
    ),
    Comparison(
        "ItemKNN",
        {"neighbours": 100, "shrinkage": 10.0},
        "recbole",
        "ItemKNN",
        "The same model: the 100 nearest of the item that is scored.",
    ),
    Comparison(
        "ItemKNN",
        {"neighbours": 10_000},
        "cornac",
        "ItemKNN",
        "Not the same model: cornac takes the cosine of two items over the users of both alone. Where all ratings "
        "are 1, every such cosine is 1 (`similarities`), so that only the number of neighbours in the history ranks; "
        "cornac's own average of ratings would rank nothing.",
        ours_alone={"shrinkage": 0.0},
    ),
    Comparison(
        "LightGCN",
        {**LIGHTGCN, **EPOCHS},
        "recbole",
        "LightGCN",
        "The same model and loss. RecBole counts the norm of a node as often as it is in a batch, ours once. Both rank "
        "a session as a new user.",
    ),
    Comparison(
        "LightGCN",
        {**LIGHTGCN, **EPOCHS},
        "cornac",
        "LightGCN",
        "The same model. cornac decays the spread vectors, ours and the paper layer 0. Both rank a session as a new "
        "user.",
    ),
    Comparison(
        "LightGCN",
        {**LIGHTGCN, **EPOCHS},
        "cornac",
        "BPR",
        "Not the same model: matrix factorization with the same loss and as many dimensions. It cannot rank a "
        "history, so it ranks by the vectors of the users, which have learned from all their sessions.",
        theirs_alone={"learning_rate": 0.05, "weight_decay": 0.01, "max_epochs": 300, "patience": 30},
    ),
    Comparison(
        "SASRec",
        {**SASREC, **EPOCHS},
        "rectools",
        "SASRec",
        "The same loss. RecTools' blocks add to their normalised input, as the authors' code does, ours to the "
        "input, as the paper does. RecTools does not scale what it embeds.",
    ),
    Comparison(
        "SASRec",
        {**SASREC, **EPOCHS},
        "cornac",
        "SASRec",
        "cornac's blocks add to their normalised input. Its cross-entropy is over the batch's targets and 2,048 items "
        "drawn by the root of their popularity, and each prefix of a session is an example: a batch of 4 x 128 "
        "examples is one of 128 sessions.",
        theirs_alone={"num_sampled": 2048},
    ),
    Comparison(
        "BERT4Rec",
        {**BERT4REC, "max_epochs": 50, "patience": 15},
        "rectools",
        "BERT4Rec",
        "The same loss. RecTools' blocks normalise before each layer, ours after it, as BERT does. Of RecTools' masked "
        "items a tenth are replaced by others and a tenth stay; ours are all replaced by the mask.",
        ours_alone={"decay": 1.0, "precision": "fp32"},
    ),
)


def exchange_of(dataset: Dataset) -> Exchange:
    """The data set as the libraries' scripts read it."""
    sessions = dataset.sessions
    _, users = np.unique(np.array(sessions.user_ids.to_list()), return_inverse=True)
    train, validation, test = (sessions.splits.mask(split) for split in ("train", "validation", "test"))
    histories, targets = sessions.histories.astype(np.int64), sessions.targets.astype(np.int64)
    return Exchange(
        num_users=int(users.max()) + 1,
        num_items=len(dataset.catalog),
        users=users,
        sequences=np.concatenate([histories, np.where(train, targets, UNKNOWN)[:, None]], axis=1),
        validation_users=users[validation],
        validation_histories=histories[validation],
        validation_targets=targets[validation],
        test_users=users[test],
        test_histories=histories[test],
        test_targets=targets[test],
    )


def ours(comparison: Comparison, dataset: Dataset, seed: int) -> Answer:
    """What this project's method says of the test sessions."""
    start, kind = time.perf_counter(), find_method(comparison.method)
    method = kind()
    method.fit(dataset, kind.Config(**comparison.settings, **comparison.ours_alone), seed)
    ranks = method.score_targets(dataset.sessions.select("test")).ranks[:, 0]
    about: dict[str, Any] = {"seconds": time.perf_counter() - start}
    if epochs := getattr(method, "epochs", None):
        about |= {"best_epoch": epochs.best, "epochs": len(epochs.losses), "validation": epochs.scores[epochs.best]}
    return Answer(ranks, about)


def theirs(comparison: Comparison, data: Path, seed: int, answer: Path) -> None:
    """Let the library's script write `answer`. Raises `CalledProcessError` when it fails."""
    settings = json.dumps({**comparison.settings, **comparison.theirs_alone})
    script = HERE / f"with_{comparison.library}.py"
    options = ["--data", str(data), "--settings", settings, "--seed", str(seed), "--answer", str(answer)]
    subprocess.run(
        [WORK / comparison.library / "bin" / "python", script, comparison.model, *options],
        check=True,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        cwd=answer.parent,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "CUDA_VISIBLE_DEVICES": ""},
    )


def digest(*parts: object, files: Iterable[Path]) -> str:
    """A short name for an answer that changes with what it comes from."""
    found = hashlib.sha256(repr(parts).encode())
    for file in sorted(files):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def answers_to(comparison: Comparison, dataset: Dataset, data: Path, seed: int) -> tuple[Answer, Answer]:
    """Our answer and theirs, trained now unless they are there already."""
    folder = WORK / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**comparison.settings, **comparison.ours_alone}
    code = (ROOT / "python" / "langptune_rs" / "baselines").glob("*.py")
    own = folder / f"{comparison.method}-{digest(settings, seed, files=[*code, data])}.npz"
    if not own.exists():
        print(f"fitting {comparison.method}, seed {seed}", file=sys.stderr, flush=True)
        write_answer(own, ours(comparison, dataset, seed))
    scripts = [HERE / "exchange.py", HERE / f"with_{comparison.library}.py", data]
    settings = {**comparison.settings, **comparison.theirs_alone}
    other = folder / f"{comparison.model}-of-{comparison.library}-{digest(settings, seed, files=scripts)}.npz"
    if not other.exists():
        print(f"fitting {comparison.model} of {comparison.library}, seed {seed}", file=sys.stderr, flush=True)
        theirs(comparison, data, seed, other)
    return read_answer(own), read_answer(other)


def scores_of(answers: Iterable[Answer]) -> NDArray[np.floating]:
    """The NDCG@20 of each session, (T,), as the mean over the seeds' answers."""
    scores: NDArray[np.floating] = np.mean(
        [evaluate(answer.ranks, [METRIC]).per_user[METRIC] for answer in answers], axis=0
    )
    return scores


@dataclass(frozen=True)
class Measured:
    """What came out of a comparison."""

    comparison: Comparison
    outcome: Outcome | None
    """None where nothing was measured."""
    about: str
    """What the two sides say of their training, or why there is no outcome."""
    versions: Mapping[str, str]


def describe(side: str, answers: Iterable[Answer]) -> str:
    """What one side's answers say of their training, in a line."""
    texts = []
    for answer in answers:
        about = {name: value for name, value in answer.about.items() if name not in ("versions", "seconds")}
        texts.append(
            ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in about.items()
            )
        )
    return f" {side.capitalize()}: {'; '.join(texts)}." if any(texts) else ""


def measure(comparison: Comparison, dataset: Dataset, data: Path, seeds: Iterable[int]) -> Measured:
    """Train both sides with each seed and compare their scores."""
    try:
        pairs = [answers_to(comparison, dataset, data, seed) for seed in seeds]
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return Measured(comparison, None, f"{comparison.library} failed: {said[-1]}", {})
    own, other = zip(*pairs, strict=True)
    users = exchange_of(dataset).test_users
    outcome = compare_scores(scores_of(own), scores_of(other), users)
    about = (describe("here", own) + describe("there", other)).strip()
    return Measured(comparison, outcome, about, other[0].about["versions"])


def table(measured: Iterable[Measured]) -> str:
    """A row for each comparison."""
    header = ("method here", "model there", METRIC, "there", "difference", "standard error", "verdict")
    rows = []
    for number, row in enumerate(measured, start=1):
        comparison, outcome = row.comparison, row.outcome
        names = f"{number}. {comparison.method}", f"{comparison.model}, {comparison.library}"
        if outcome is None:
            rows.append((*names, "", "", "", "", "not measured"))
        else:
            numbers = f"{outcome.ours:.4f}", f"{outcome.theirs:.4f}", f"{outcome.difference:+.4f}"
            rows.append((*names, *numbers, f"{outcome.error:.4f}", outcome.verdict))
    return markdown_table(header, rows)


def report(measured: list[Measured], data: Exchange, seeds: list[int]) -> str:
    """The file of results."""
    today = datetime.date.today().isoformat()
    libraries = {
        row.comparison.library: ", ".join(f"{name} {number}" for name, number in row.versions.items())
        for row in measured
        if row.versions
    }
    git = shutil.which("git")
    asked = [git, "rev-parse", "--short", "HEAD"] if git else []
    commit = subprocess.run(asked, capture_output=True, text=True, cwd=HERE).stdout if asked else ""
    here = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "torch-geometric", "transformers", "numpy", "scipy")
    )
    notes = [
        f"{number}. {row.comparison.notes} Settings: {settings_text(row.comparison)}. {row.about}".rstrip()
        for number, row in enumerate(measured, start=1)
    ]
    return (
        "\n\n".join(
            [
                f"# The methods beside the same models of other libraries, {machine()}, {today}",
                f"Written by `make conformance` at commit {commit.strip() or 'unknown'}, with the seeds "
                f"{', '.join(map(str, seeds))}. MovieLens-100K: "
                f"{len(data.sequences):,} sessions of {data.num_users} users, 4 items and a target, 84/8/8 by session. "
                f"All models learn from the train sessions and from the histories of the others, and rank each of the "
                f"{len(data.test_targets):,} test targets among all items outside its history, of {data.num_items:,}. "
                "What trains in epochs keeps that of the best NDCG@20 on validation, by the same rule on both sides.",
                f"Here: {here}, Python {platform.python_version()}. Environments of the others, with the same torch: "
                + "; ".join(f"{library}: {text}" for library, text in sorted(libraries.items()))
                + ". All packages are pinned in `benches/conformance/requirements-*.txt`.",
                table(measured),
                "`better`: by more than two standard errors. `as good`: within two standard errors, or within 5% of "
                "theirs. `worse`: neither. The standard error is that of the paired difference, with the sessions "
                "of one user as one draw; it does not count what another seed of training would change.",
                "\n".join(notes),
                "Few epochs and small models are enough to see whether the two sides learn alike. The numbers are no "
                "ranking of methods: none was tuned.",
            ]
        )
        + "\n"
    )


def settings_text(comparison: Comparison) -> str:
    """The settings in words."""
    parts = [", ".join(f"{name} {value}" for name, value in comparison.settings.items())]
    for side, settings in (("here", comparison.ours_alone), ("there", comparison.theirs_alone)):
        if settings:
            parts.append(f"{side} alone " + ", ".join(f"{name} {value}" for name, value in settings.items()))
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="train everything once for each")
    parser.add_argument("--only", type=int, nargs="+", metavar="ROW", help="compare these rows of the table alone")
    arguments = parser.parse_args()
    seeds, rows = arguments.seeds, arguments.only or range(1, len(COMPARISONS) + 1)
    WORK.mkdir(parents=True, exist_ok=True)
    dataset = open_source(DATA, WORK / "data")
    data = exchange_of(dataset)
    path = WORK / "exchange.npz"
    data.save(path)
    measured = [
        measure(comparison, dataset, path, seeds) if row in rows else Measured(comparison, None, "Not run.", {})
        for row, comparison in enumerate(COMPARISONS, start=1)
    ]
    name = f"conformance-{hardware(machine())}-{datetime.date.today().isoformat()}.md"
    results = ROOT / "benches" / "results" / name
    results.write_text(report(measured, data, seeds))
    print(results)
    if faults := [row for row in measured if row.outcome is None or row.outcome.verdict == "worse"]:
        sys.exit(f"{len(faults)} of {len(measured)} rows of the table are worse or not measured.")


if __name__ == "__main__":
    main()
