"""Damages the files that commands read, one at a time, and looks at what is said: python benches/fuzz.py --minutes 10.

A trial damages one file of a small project at random, runs a command on it, and puts the file back. The command may
refuse the file, with an error that names it or a key in it, or read it for what it says now. It may not raise anything
else, and no weight may be another one without a word. `tests/end_to_end/test_fuzz.py` makes some of the same trials.

Prints a table of the kinds of files, then the faults, each with the command that makes it again.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from itertools import cycle
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).parents[1]
SECONDS = 120
"""How long a trial of the script may take."""
MEMORY = 24 << 30
"""Address space of the script, which an absurd size in a configuration must not exceed."""
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a96\nsize 538090408\n"
OTHER_VALUES: tuple[Any, ...] = (None, True, False, 0, 3, -1, 0.5, "x", "", [], {}, [1], ["x"], {"x": 1})
OTHER_TOML: tuple[str, ...] = (
    "3",
    "-1",
    "0",
    "0.5",
    '"x"',
    '""',
    '"none"',
    "[]",
    "{}",
    "true",
    "1e400",
    "nan",
    "1979-05-27",
)
OTHER_TOML += ("9" * 5000, "0x" + "f" * 5000, "99999999999999999999")

Damage = Callable[[random.Random, bytes], bytes]


def _span(draw: random.Random, data: bytes) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 7, 64, 1000)))


def cut_short(draw: random.Random, data: bytes) -> bytes:
    """The first bytes of a file."""
    return data[: draw.randrange(len(data))] if data else data


def emptied(draw: random.Random, data: bytes) -> bytes:
    """Nothing."""
    return b""


def pointer(draw: random.Random, data: bytes) -> bytes:
    """What Git LFS leaves where it did not fetch a file."""
    return POINTER


def flipped(draw: random.Random, data: bytes) -> bytes:
    """Some bits of a file are others."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def overwritten(draw: random.Random, data: bytes) -> bytes:
    """Some bytes are random, or zero."""
    start, end = _span(draw, data)
    return data[:start] + (draw.randbytes(end - start) if draw.random() < 0.5 else bytes(end - start)) + data[end:]


def with_hole(draw: random.Random, data: bytes) -> bytes:
    """Some bytes are missing."""
    start, end = _span(draw, data)
    return data[:start] + data[end:]


def repeated(draw: random.Random, data: bytes) -> bytes:
    """Some bytes are there twice."""
    start, end = _span(draw, data)
    return data[:end] + data[start:]


BYTES: tuple[Damage, ...] = (cut_short, cut_short, emptied, pointer, flipped, flipped, overwritten, with_hole, repeated)


def other_json(draw: random.Random, data: bytes) -> bytes:
    """A key or an element is missing, or has a value of another type."""
    try:
        value = json.loads(data)
    except ValueError:
        return flipped(draw, data)
    places: list[tuple[Any, Any]] = list(_places(value))
    if not places:
        return json.dumps(draw.choice(OTHER_VALUES)).encode()
    holder, key = draw.choice(places)
    if draw.random() < 0.4:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(draw.choice(OTHER_VALUES))
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def other_line(draw: random.Random, data: bytes) -> bytes:
    """One line of JSON is another."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    i = draw.randrange(len(lines))
    lines[i] = other_json(draw, lines[i]) + b"\n"
    return b"".join(lines)


def other_toml(draw: random.Random, data: bytes) -> bytes:
    """A key is missing, or has another value."""
    lines = data.decode(errors="replace").splitlines()
    keys = [i for i, line in enumerate(lines) if " = " in line]
    if not keys:
        return data
    i = draw.choice(keys)
    key = lines[i].partition(" = ")[0]
    lines[i] = "" if draw.random() < 0.3 else f"{key} = {draw.choice(OTHER_TOML)}"
    return "\n".join(lines).encode()


def other_table(draw: random.Random, data: bytes) -> bytes:
    """A sound table in which a column is missing, of another type, or without values; or rows are missing or twice."""
    table = pl.read_parquet(BytesIO(data))
    name = draw.choice(table.columns)
    other = draw.choice(("drop", "null", "list", "text", "number", "head", "twice", "reverse"))
    changed = {
        "drop": lambda: table.drop(name),
        "null": lambda: table.with_columns(pl.lit(None).cast(table.schema[name]).alias(name)),
        "list": lambda: table.with_columns(pl.concat_list(pl.lit(1)).alias(name)),
        "text": lambda: table.with_columns(pl.lit("x").alias(name)),
        "number": lambda: table.with_columns(pl.int_range(pl.len()).alias(name)),
        "head": lambda: table.head(draw.randrange(3)),
        "twice": lambda: pl.concat([table, table.head(1)]),
        "reverse": lambda: table.with_columns(pl.col(name).reverse()),
    }[other]()
    out = BytesIO()
    changed.write_parquet(out)
    return out.getvalue()


def inside_gzip(draw: random.Random, data: bytes) -> bytes:
    """Damaged text, packed well."""
    return gzip.compress(draw.choice((*BYTES, other_line))(draw, gzip.decompress(data)), mtime=0)


_BY_SUFFIX: dict[str, Damage] = {
    ".json": other_json,
    ".jsonl": other_line,
    ".toml": other_toml,
    ".parquet": other_table,
    ".gz": inside_gzip,
}


def draw_damage(draw: random.Random, file: Path) -> Damage:
    """How to damage a file: its bytes, or for some formats as often what it says."""
    by_format = _BY_SUFFIX.get(file.suffix)
    return by_format if by_format and draw.random() < 0.5 else draw.choice(BYTES)


class Fault(Exception):
    """A command did what no damage may bring it to."""


@dataclass(frozen=True)
class Trial:
    """One damaged file."""

    file: Path
    before: bytes
    after: bytes
    draw: random.Random


Use = Callable[[Trial], str | None]
"""Reads the damaged file, and returns the error that refused it; None where it was taken. Raises what goes wrong."""


@dataclass(frozen=True)
class Kind:
    """Some files, and what reads them."""

    name: str
    patterns: tuple[str, ...]
    use: Use
    words: tuple[str, ...] = ()
    """What an error may name instead of the file."""


@dataclass
class Figures:
    """How the trials of a kind went."""

    tried: int = 0
    refused: int = 0
    taken: int = 0
    faults: list[str] = field(default_factory=list)


class Project:
    """A small project in `folder`: logs, models, a prepared data set, and a finished run, each read by some command."""

    def __init__(self, folder: Path):
        self.folder = folder / "project"
        self._whole = folder / "whole"
        self.folder.mkdir()
        _make(self.folder)
        shutil.copytree(self.folder, self._whole)
        self.kinds = {kind.name: kind for kind in _kinds(self.folder)}

    def trial(self, kind: Kind, seed: str, figures: Figures) -> None:
        """Make the trial of a seed."""
        draw = random.Random(seed)
        files = sorted({file for pattern in kind.patterns for file in self.folder.glob(pattern) if file.is_file()})
        file = draw.choice(files)
        before = file.read_bytes()
        damage = draw_damage(draw, file)
        after = damage(draw, before)
        if after == before:
            return
        what = f"{kind.name}, {file.relative_to(self.folder)}, {damage.__name__}, trial {seed}"
        figures.tried += 1
        try:
            file.write_bytes(after)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                said = kind.use(Trial(file, before, after, draw))
            if said is None:
                figures.taken += 1
            else:
                words = (file.name, file.parent.name, *kind.words)
                if not any(word in said for word in words) and not re.search(r"\b[a-z_.]+ = |'[a-z_]+\.[a-z_]+'", said):
                    raise Fault(f"the error names nothing: {said}")
                figures.refused += 1
        except KeyboardInterrupt:
            raise
        except BaseException:
            figures.faults.append(f"{what}\n{traceback.format_exc()}")
        finally:
            self._restore()

    def _restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._whole, self.folder)


def command(*arguments: object) -> tuple[str, str | None]:
    """What `langptune` prints, and the error that it ends with. Raises what it does not turn into an error."""
    from typer.testing import CliRunner

    from langptune_cli.app import app

    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    if result.exit_code == 0:
        return result.stdout, None
    said = result.stderr[result.stderr.find("error: ") :]
    if result.exit_code != 2 or not said.startswith("error: "):
        raise Fault(f"exit code {result.exit_code}: {result.stderr}")
    return result.stdout, said


def _make(folder: Path) -> None:
    """Write everything that trials damage."""
    from langptune_rs.config import load_config, to_toml
    from langptune_rs.config.data import make_config
    from langptune_rs.config.policy import PolicyConfig
    from langptune_rs.data import load, prepare
    from langptune_rs.experiments.evaluate import evaluate_run
    from langptune_rs.experiments.profiles import Job, opened_parts, write_share
    from langptune_rs.models.policy import Policy
    from langptune_rs.runs.folder import CONFIG, note_data
    from langptune_rs.runs.saved_models import note_saved
    from langptune_rs.runs.trained import MODELS
    from langptune_rs.training.checkpoints import Position, save_checkpoint
    from langptune_rs.training.phase_profiles import KeptProfiles, Written, save_written

    tiny: Any = importlib.import_module("tests.experiments.tiny")
    run = tiny.make_run(folder, num_users=24)
    _write_sources(folder)
    template = folder / "own.jinja"
    template.write_text("{% macro instruction(has_ratings, has_reviews) %}Describe this user.{% endmacro %}\n")
    prepare(folder / "source", folder / "data", make_config(**_DATA, template=str(template)))
    overrides = [f"data.source={folder / 'data'}", "data.max_item_tokens=none", "data.max_history_tokens=none"]
    config = load_config(run / CONFIG, [*overrides, "data.min_interactions=2", f"data.template={template}"])
    (run / CONFIG).write_text(to_toml(config))
    (folder / "recipe.toml").write_text(to_toml(config))
    note_data(run, load(folder / "data"))
    note_saved(run, MODELS)
    evaluate_run(run, progress=False)
    (folder / "history.jsonl").write_text(
        '{"item_id": "i1", "rating": 4}\n{"title": "Story 2 of old kitchens", "review_text": "It burns."}\n'
    )
    lora = Policy.load(PolicyConfig(model=str(folder / "tiny-policy"), train="lora"))
    lora.save(folder / "adapter")
    checkpoints = folder / "checkpoints"
    beside = folder / "checkpoints" / "reference-1.safetensors"
    checkpoints.mkdir()
    beside.write_bytes(random.Random(0).randbytes(2000))
    for step in (1, 2):
        engines: dict[str, Any] = {"policy": _Engine(step), "embedder": _Engine(-step)}
        save_checkpoint(checkpoints, engines, Position(1, "rlso", step, step), 2, [beside] if step == 2 else [])
    save_written(checkpoints / "profiles-0.json", Written(_TEXTS, seconds=1.5))
    kept = KeptProfiles(checkpoints / "profiles-0-0-of-1.jsonl")
    for batch in _BATCHES:
        kept.add(batch)
    job = Job.open(run, "test", 1)
    with opened_parts(folder / "parts", job.made_of) as parts:
        write_share(job, parts, 0, 1)
    command("profiles", run, folder / "profiles", "--split", "test")


_DATA: dict[str, Any] = {
    "max_item_tokens": None,
    "max_history_tokens": None,
    "windows": "all",
    "min_interactions": 2,
}
_TEXTS = ["A user.", "Another."]
_BATCHES = [[[1, 2], [3]], [[4, 5, 6]], [[7], [8]]]
_FIELDS = {"item_id": "token", "title": "token", "description": "token_seq", "user_id": "token"}


def _write_sources(folder: Path) -> None:
    """The same logs in every format."""
    items, interactions = (pl.read_ndjson(folder / "source" / f"{name}.jsonl") for name in ("items", "interactions"))
    for name in ("csv", "parquet", "gzip", "recbole", "amazon"):
        (folder / name).mkdir()
    for name, table in (("items", items), ("interactions", interactions)):
        table.write_csv(folder / "csv" / f"{name}.csv")
        table.write_parquet(folder / "parquet" / f"{name}.parquet")
        lines = (folder / "source" / f"{name}.jsonl").read_bytes()
        (folder / "gzip" / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
        types = table.rename({column: f"{column}:{_FIELDS.get(column, 'float')}" for column in table.columns})
        types.write_csv(
            folder / "recbole" / f"own.{'item' if name == 'items' else 'inter'}", separator="\t", quote_style="never"
        )
    described = [{"asin": row["item_id"], "title": row["title"], "price": 3.5} for row in items.to_dicts()]
    reviews = [
        {
            "reviewerID": row["user_id"],
            "asin": row["item_id"],
            "overall": row["rating"],
            "reviewText": "It burns.",
            "unixReviewTime": int(row["timestamp"]),
        }
        for row in interactions.to_dicts()
    ]
    (folder / "amazon" / "meta_Books.json").write_text("".join(f"{row}\n" for row in described))
    (folder / "amazon" / "reviews_Books.json").write_text("".join(json.dumps(row) + "\n" for row in reviews))


class _Engine:
    """Saves files as an engine does. What is in them is nobody's business but their hashes'."""

    def __init__(self, seed: int):
        self._seed = seed

    def save_checkpoint(self, folder: str, tag: str, **options: object) -> None:
        Path(folder, tag).mkdir(parents=True)
        for name in ("weights.pt", "optimizer.pt"):
            Path(folder, tag, name).write_bytes(random.Random(f"{self._seed} {name}").randbytes(4000))


def _kinds(folder: Path) -> list[Kind]:
    """All kinds of files, for a project that is whole now."""
    run, data, recipe, checkpoints = (folder / name for name in ("run", "data", "recipe.toml", "checkpoints"))
    shown = ("data", "inspect", data, "--no-plots", "--json")
    reported, recommended = ("report", run), ("recommend", run, "--profile", "cats")
    profiled, resumed = ("profile", run, "--user", "u1"), ("train", "--output", run, "--resume")
    parts, profiles = (("profiles", run, folder / name, "--split", "test") for name in ("parts", "profiles"))

    def prepared(source: str, template: Path | None = None) -> Use:
        return lambda trial: _prepare(trial, folder / source, folder / "out", template)

    def any_of(*choices: Sequence[object]) -> Use:
        return lambda trial: command(*trial.draw.choice(choices))[1]

    def unchanged(*arguments: object) -> Use:
        """The command says what it says of the whole files, or refuses the damaged one."""
        whole = command(*arguments)[0]
        return lambda trial: _as_before(whole, *command(*arguments))

    def loaded(load: Callable[[Path], Any]) -> Use:
        whole = {name: tensor.clone() for name, tensor in load(folder).state_dict().items()}
        return lambda trial: _load(trial, whole, lambda: load(folder))

    logs = {"JSON lines": "source", "CSV": "csv", "parquet": "parquet", "gzip": "gzip", "RecBole": "recbole"}
    return [
        Kind("recipe", ("recipe.toml",), any_of(("config", "show", recipe), ("plan", recipe))),
        *(
            Kind(name, (f"{source}/*",), prepared(source), ("interactions", "items"))
            for name, source in (logs | {"Amazon": "amazon"}).items()
        ),
        Kind("template", ("own.jinja",), prepared("source", folder / "own.jinja")),
        Kind("tables of a data set", ("data/*.parquet", "data/*.jinja", "data/arrow/*"), unchanged(*shown)),
        Kind("dataset.toml", ("data/dataset.toml",), any_of(shown, shown[:-1], reported)),
        Kind("history", ("history.jsonl",), any_of(("profile", run, "--history", folder / "history.jsonl"))),
        Kind(
            "run",
            ("run/config.toml", "run/*.json", "run/*.jsonl", "run/*.parquet"),
            any_of(reported, reported, recommended, resumed),
            ("data", "policy", "embedder"),
        ),
        Kind("trained policy", ("run/policy/*",), lambda trial: _saved(trial, *profiled)),
        Kind("trained embedder", ("run/embedder/**/*",), lambda trial: _saved(trial, *recommended)),
        Kind("hashes of trained models", ("run/trained",), any_of(recommended)),
        Kind("policy", ("tiny-policy/*",), loaded(_policy), ("policy",)),
        Kind("embedder", ("tiny-embedder/**/*",), loaded(_embedder), ("embedder",)),
        Kind("adapter", ("adapter/*",), loaded(_adapter), ("adapter", "policy")),
        Kind("sizes of models", ("tiny-*/**/*config*.json", "tiny-*/modules.json"), any_of(("plan", recipe))),
        Kind(
            "tokenizers",
            ("tiny-policy/*token*", "tiny-embedder/*token*"),
            lambda trial: _count_tokens(folder),
            ("tokenizer",),
        ),
        Kind("checkpoints", ("checkpoints/step-*/**/*", "checkpoints/reference-*"), lambda _: _resume(checkpoints)),
        Kind("kept profiles", ("checkpoints/profiles-*",), lambda _: _kept(checkpoints)),
        Kind("parts of profiles", ("parts.parts/*",), any_of((*parts, "--samples", 1))),
        Kind("profiles", ("profiles",), any_of(profiles)),
    ]


def _prepare(trial: Trial, source: Path, out: Path, template: Path | None = None) -> str | None:
    limits = ("--max-item-tokens", 0, "--max-history-tokens", 0, "--min-interactions", 2)
    skips = ("--on-bad-line", "skip") if trial.draw.random() < 0.5 else ()
    wording = ("--template", template) if template else ()
    return command("data", "prepare", source, out, *limits, *skips, *wording)[1]


def _as_before(whole: str, shown: str, said: str | None) -> str | None:
    if said is None and shown != whole:
        raise Fault(f"another content is shown without a word: {shown[:500]}")
    return said


def _saved(trial: Trial, *arguments: object) -> str | None:
    said = command(*arguments)[1]
    if said is None and trial.file.name != "README.md":
        raise Fault("a file of a trained model has changed, and nothing was said")
    return said


def _policy(folder: Path) -> Any:
    from langptune_rs.config.policy import PolicyConfig
    from langptune_rs.models.policy import Policy

    return Policy.load(PolicyConfig(model=str(folder / "tiny-policy"), last_layers=1)).model


def _embedder(folder: Path) -> Any:
    from langptune_rs.config.embedder import EmbedderConfig
    from langptune_rs.models.embedder import Embedder

    embedder = Embedder.load(EmbedderConfig(model=str(folder / "tiny-embedder")))
    embedder.encode_profiles(["Someone who reads."])
    return embedder.model


def _adapter(folder: Path) -> Any:
    from langptune_rs.config.policy import PolicyConfig
    from langptune_rs.models.policy import Policy

    config = PolicyConfig(model=str(folder / "tiny-policy"), train="lora")
    return Policy.from_folder(folder / "adapter", config).model


def _load(trial: Trial, whole: dict[str, Any], load: Callable[[], Any]) -> str | None:
    """Load a model. A weight that differs is a fault, unless only numbers within a tensor differ in its file."""
    from langptune_rs.errors import LangptuneError

    try:
        tensors = load().state_dict()
    except LangptuneError as error:
        return str(error)
    others = [name for name, tensor in whole.items() if name not in tensors or not tensors[name].equal(tensor)]
    if others and not _only_numbers_differ(trial):
        raise Fault(f"other weights were loaded without a word: {', '.join(others)}")
    return None


def _only_numbers_differ(trial: Trial) -> bool:
    """Whether a safetensors file has the same header and size: nothing in it says which numbers were meant."""
    before, after = trial.before, trial.after
    data = 8 + int.from_bytes(before[:8], "little")
    return trial.file.suffix == ".safetensors" and len(before) == len(after) and before[:data] == after[:data]


def _count_tokens(folder: Path) -> str | None:
    models = ("--embedder", folder / "tiny-embedder", "--policy", folder / "tiny-policy")
    return command("data", "prepare", folder / "source", folder / "out", "--min-interactions", 2, *models)[1]


def _resume(checkpoints: Path) -> str | None:
    """The checkpoint that a run would go on from must be one that is whole."""
    from langptune_rs.errors import LangptuneError
    from langptune_rs.training.checkpoints import newest_checkpoint

    newest = sorted(checkpoints.glob("step-*"))[-1]
    with redirect_stderr(StringIO()) as said:
        try:
            found = newest_checkpoint(checkpoints)
        except LangptuneError as error:
            return str(error)
    if found is None or not found.folder.is_dir():
        raise Fault("no checkpoint was found")
    if found.folder != newest:
        return said.getvalue()
    whole = checkpoints.parent.with_name("whole") / "checkpoints"
    files = [*newest.rglob("*"), *checkpoints.glob("reference-*")]
    if any(f.is_file() and f.read_bytes() != (whole / f.relative_to(checkpoints)).read_bytes() for f in files):
        raise Fault("a damaged checkpoint was taken")
    return None


def _kept(checkpoints: Path) -> str | None:
    from langptune_rs.training.phase_profiles import KeptProfiles, read_written

    with redirect_stderr(StringIO()) as said:
        written = read_written(checkpoints / "profiles-0.json")
        batches = KeptProfiles(checkpoints / "profiles-0-0-of-1.jsonl").batches
    if (written and written.texts != _TEXTS) or batches != _BATCHES[: len(batches)]:
        raise Fault(f"other profiles were taken without a word: {written}, {batches}")
    return said.getvalue() or None


@contextmanager
def bounded() -> Iterator[None]:
    """Inside the block this process has a limit of memory, and what takes longer than `SECONDS` is stopped."""

    def stop(*_: object) -> None:
        raise Fault(f"it takes longer than {SECONDS} seconds")

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def table(figures: dict[str, Figures]) -> str:
    """The figures of each kind, as Markdown."""
    rows = [(name, [f.tried, f.refused, f.taken, len(f.faults)]) for name, f in figures.items()]
    rows.append(("all", [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]))
    return "\n".join(
        [
            "| damaged | tried | refused | read as it is | faults |",
            "|---|---:|---:|---:|---:|",
            *(f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |" for name, numbers in rows),
        ]
    )


def main() -> None:
    """Make trials of every kind in turn until the time is over, or those of `--trial`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only files of this kind; may be repeated")
    parser.add_argument("--trial", type=int, help="only this trial of each kind")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as temporary, bounded():
        os.environ["LANGPTUNE_CACHE"] = str(Path(temporary) / "cache")
        project = Project(Path(temporary))
        kinds = [kind for name, kind in project.kinds.items() if not options.kind or name in options.kind]
        figures = {kind.name: Figures() for kind in kinds}
        end, trial = time.monotonic() + 60 * options.minutes, options.trial or 0
        for kind in cycle(kinds):
            if kind is kinds[0] and (time.monotonic() > end or (options.trial is not None and trial > options.trial)):
                break
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            project.trial(kind, f"{options.seed}-{trial}", figures[kind.name])
            signal.setitimer(signal.ITIMER_REAL, 0)
            trial += kind is kinds[-1]
    print(table(figures))
    for kind in kinds:
        for fault in figures[kind.name].faults:
            print(f"\n{fault}")
    sys.exit(any(f.faults for f in figures.values()))


if __name__ == "__main__":
    main()
