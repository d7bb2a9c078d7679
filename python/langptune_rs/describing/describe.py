"""`langptune describe`: the policy learns to describe items by their reviews, and its descriptions are judged."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from langptune_rs.config import RunConfig, load_config
from langptune_rs.data import Catalog, Dataset
from langptune_rs.data.store.tables import write_parquet
from langptune_rs.describing.examples import examples_of, find_items
from langptune_rs.describing.items import DESCRIPTIONS, descriptions_of_items
from langptune_rs.describing.judging import INITIAL, TRAINED
from langptune_rs.describing.results import JudgedCatalogs
from langptune_rs.describing.reviews import Reviews, train_reviews
from langptune_rs.describing.users import TITLES
from langptune_rs.describing.writing import Describer, Written, statistics, write_descriptions
from langptune_rs.errors import ConfigError, InputError, RunError
from langptune_rs.experiments.kept import Kept
from langptune_rs.experiments.machine import versions
from langptune_rs.experiments.prepared import prepared
from langptune_rs.experiments.seeds import check_no_seed, check_seeds
from langptune_rs.experiments.trained_runs import evaluated, trained
from langptune_rs.files import locked, write_atomically, write_text
from langptune_rs.models.memory import free_memory, keep_freed_memory
from langptune_rs.models.policy import Policy
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.runs.results import per_user_path, results_path
from langptune_rs.runs.saved_models import check_saved, version_of_saved
from langptune_rs.runs.trained import TrainedRun

RECIPE = "describe"
VALIDATION = "validation"
KEPT = "kept"
"""The folder in the output where finished parts are kept."""
DESCRIPTIONS_FILE = "descriptions.jsonl"
"""One line for each item with reviews: what was read, and what each policy wrote."""


def describe(
    data: str,
    output: Path,
    *,
    recipe: str = RECIPE,
    overrides: Sequence[str] = (),
    run: Path | None = None,
    seeds: Sequence[int] = (0,),
    split: str = VALIDATION,
    items: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a policy for each seed to describe items by their reviews, and judge catalogs of descriptions.

    What is finished is kept in `output`, and the same call goes on from there.

    Args:
        data: a source name, a folder, or a prepared data set, with reviews.
        output: a folder for the data, the runs and the results.
        recipe: the name or the file of a recipe that writes descriptions.
        overrides: of its keys, such as rlso.steps=8.
        run: a trained run on the same data, whose profiles stand for the users and whose embedder ranks. It is
            evaluated on the splits on which it was not yet.
        seeds: of the policies. The scores of a session are averaged over them.
        split: whose sessions are ranked, validation or test.
        items: ids or titles of items to show as examples, in place of drawn ones.

    Returns:
        The content of results.json, which `docs/describe.md` explains.

    Raises:
        ConfigError: for a recipe that writes no descriptions, or settings that do not go together.
        DataError: for data without reviews, a split without sessions, or an item that is not there.
        InputError: for no seeds, one twice, or the train split.
        RunError: for a run that has not finished or is of other data, or an `output` that holds something else.
    """
    started = time.monotonic()
    keep_freed_memory()
    check_seeds(seeds)
    if split == "train":
        raise InputError("policies have learned from the choices of the train split; judge on validation or test")
    config = _config(data, recipe, overrides, run)
    if output.is_file():
        raise RunError(f"{output} is a file. Give the runs and the results a folder with another --output.")
    output.mkdir(parents=True, exist_ok=True)
    with locked(output / ".lock", lambda holder: RunError(f"Another process{holder} is at work in {output}.")):
        dataset, folder = prepared(config, output)
        config = config.with_values({"data.source": str(folder.absolute())})
        reviews = train_reviews(dataset, config.description, config.data.seed)
        shown = find_items(dataset.catalog, reviews, items)
        dataset.sessions.select(split)  # a split without sessions is refused before anything is trained
        if run is not None:
            _check_run(run, dataset, data)
            for needed in dict.fromkeys(("train", VALIDATION, split)):
                evaluated(run, needed)
        runs = {seed: _trained(output, config, seed) for seed in seeds}
        kept = Kept(output / KEPT)
        written = _written(config, dataset, reviews, runs, kept)
        write_text(output / DESCRIPTIONS_FILE, _lines(dataset.catalog, reviews, written))
        judged = JudgedCatalogs.of(config, dataset, reviews, written, split, kept)
        results = {
            **judged.results(),
            "data": str(data),
            "num_items": len(dataset.catalog),
            "num_described": len(reviews.items),
            "num_learned_from": len(descriptions_of_items(config, dataset).train.ids),
            "users": TITLES if run is None else f"profiles of {run}",
            "seeds": list(seeds),
            "descriptions": {
                INITIAL: statistics(written[INITIAL]),
                TRAINED: {str(seed): statistics(written[seed]) for seed in seeds},
            },
            "examples": examples_of(shown, dataset.catalog, reviews, written, judged.ranks()),
            "config": _decisive_keys(config),
            "seconds": time.monotonic() - started,
            "versions": versions(),
        }
        write_atomically(per_user_path(output, split), partial(write_parquet, judged.per_user(dataset)))
        write_text(results_path(output, split), json.dumps(results, indent=1, allow_nan=False) + "\n")
    return results


def _config(data: str, recipe: str, overrides: Sequence[str], run: Path | None) -> RunConfig:
    """The configuration of all seeds.

    Raises `ConfigError` and `InputError`, and `RunError` for a run that has not finished.
    """
    check_no_seed(overrides)
    own = None if run is None else TrainedRun.open(run)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key == "description.users_of":
            raise ConfigError(f"The override {override!r}: --run RUN names the run whose profiles stand for the users.")
        if own is not None and key.startswith("embedder."):
            raise ConfigError(f"The override {override!r}: with --run the embedder of {run} ranks the items.")
    config = load_config(recipe, [*overrides, f"data.source={json.dumps(str(data))}"])
    if config.writes != DESCRIPTIONS.writes:
        raise ConfigError(
            f'The recipe {recipe} has writes = "{config.writes}". Give one with writes = "{DESCRIPTIONS.writes}", such '
            f"as {RECIPE}."
        )
    if config.data.train_share < 1:
        raise ConfigError(
            "data.train_share draws other reviews for each seed, so that the seeds would have no first policy in "
            "common. Leave it out."
        )
    if own is None:
        return config
    folder = own.folder.absolute()
    embedder = own.config.embedder.model_copy(update={"model": str(folder / "embedder")})
    config = config.model_copy(update={"embedder": embedder})
    return config.with_values({"description.users_of": str(folder)})


def _check_run(run: Path, dataset: Dataset, data: str) -> None:
    """Raise `RunError` for a run of other data, whose users and items are not those of `dataset`."""
    if TrainedRun.open(run).dataset.content != dataset.content:
        raise RunError(
            f"{run} was trained on other data than {data} is, so that they have no users in common. Give the data set "
            "that it was trained on, as its config.toml names it, or leave out --run."
        )


def _trained(output: Path, config: RunConfig, seed: int) -> Path:
    run = trained(output / f"seed-{seed}", config.model_copy(update={"seed": seed}), DESCRIPTIONS)
    free_memory()
    return run


def _written(config: RunConfig, dataset: Dataset, reviews: Reviews, runs: Mapping[int, Path], kept: Kept) -> Written:
    """The descriptions by the initial policy and by the trained one of each seed. One policy is in memory at a time."""
    dtype = COMPUTE_DTYPES[config.engine.precision]
    own = {"policy": config.policy.model_dump(mode="json"), "precision": config.engine.precision}

    def trained_policy(run: Path) -> Policy:
        check_saved(run, "policy")
        return Policy.from_folder(run / "policy", config.policy, dtype)

    write = partial(write_descriptions, dataset=dataset, reviews=reviews, config=config.profile, kept=kept)
    written: Written = {INITIAL: write(Describer(INITIAL, own, lambda: Policy.load(config.policy, dtype)))}
    for seed, run in runs.items():
        version = {"version": version_of_saved(run, ["policy"])}
        describer = Describer(f"{TRAINED}, seed {seed}", own | version, partial(trained_policy, run))
        written[seed] = write(describer)
    return written


def _lines(catalog: Catalog, reviews: Reviews, written: Written) -> str:
    """The content of `DESCRIPTIONS_FILE`."""
    texts = {name: table["text"].to_list() for name, table in written.items()}
    lines = []
    for place, item in enumerate(reviews.items.tolist()):
        lines.append(
            {
                "item_id": catalog.item_ids[item],
                "title": catalog.titles[item],
                "metadata": catalog.texts[item],
                "num_reviews": int(reviews.counts[place]),
                "reviews": list(reviews.texts[place]),
                "initial": texts[INITIAL][place],
                "trained": {str(seed): own[place] for seed, own in texts.items() if seed != INITIAL},
            }
        )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _decisive_keys(config: RunConfig) -> dict[str, Any]:
    """The keys that matter most to a reader of the results; the config.toml of each run has all."""
    return {
        "policy": config.policy.model,
        "embedder": config.embedder.model,
        "instruction": config.profile.instruction,
        "closing": config.profile.closing,
        "max_tokens": config.profile.max_tokens,
        "temperature": config.profile.temperature,
        "reward": config.rlso.reward,
        "steps": config.iterations * config.rlso.steps,
        "batch_size": config.rlso.batch_size,
        "num_profiles": config.rlso.num_profiles,
        **config.description.model_dump(exclude={"users_of"}),
    }
