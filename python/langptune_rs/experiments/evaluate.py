"""The comparison at the end of a run: every session of a split once, before and after training."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.baselines import embedding, most_popular, random
from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.distributed.collectives import after_first_rank, gather_objects, rank, shard
from langptune_rs.errors import RunError
from langptune_rs.evaluation import Result
from langptune_rs.evaluation.summary import metric_names, score_sessions, summarize
from langptune_rs.files import write_atomically, write_text
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.memory import keep_freed_memory
from langptune_rs.models.policy import Policy
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.progress import progress as show_progress
from langptune_rs.rollout.copying import copied_share
from langptune_rs.rollout.prompts import encode_prompts
from langptune_rs.rollout.reward import Recommender
from langptune_rs.rollout.sampling import Profiles, write_profiles
from langptune_rs.runs.folder import open_dataset, read_config
from langptune_rs.runs.model_card import write_model_cards
from langptune_rs.runs.results import BASELINE, TEST, per_user_path, profiles_path, results_path

PACKAGES = ("langptune-rs", "torch", "transformers", "peft", "deepspeed", "sentence-transformers", "numpy", "polars")
"""Whose versions can change a result, recorded with it."""

Ranks = dict[str, np.ndarray]
"""Of each method, int64 (sessions, profiles per session)."""


def evaluate_run(run: Path, *, split: str = TEST, progress: bool = True) -> dict[str, Any]:
    """Compare the trained models with the untrained ones and with the baselines, on every session of a split.

    Writes the split's results, per-user scores and profiles into `run`; on the test split also both model cards.
    Where a run has several processes each writes the profiles of its share of the sessions, and rank 0 does the rest.

    Returns:
        The content of results.json: "methods" with one greedy profile per session, "sampled" with
        `evaluation.samples` of them at the recipe's temperature, and, where both models were trained, "parts":
        the trained embedder on the initial policy's profiles ("contrastive") and the trained policy's profiles for
        the initial embedder ("rlso"). Nothing on other ranks than 0.

    Raises:
        RunError: when `run` is no run or has not finished training.
        DataError: when the data set has no session in `split`.
    """
    started = time.monotonic()
    keep_freed_memory()
    run = Path(run)
    config = read_config(run)
    check_trained(run)
    dataset = after_first_rank(lambda: open_dataset(config, run))
    sessions = dataset.sessions.select(split).sample(config.evaluation.max_sessions, config.data.seed)
    bar = show_progress if progress else _no_progress

    profiles = _write_all_profiles(run, config, dataset, sessions, bar)
    if rank() > 0:
        return {}
    tables = _rank_all(run, config, dataset, sessions, profiles, bar)
    metrics = metric_names(config.evaluation.k)
    scores = {table: {name: score_sessions(r, metrics) for name, r in ranks.items()} for table, ranks in tables.items()}

    results = {
        "split": split,
        "num_sessions": len(sessions),
        "split_size": dataset.sessions.splits.count(split),
        "num_items": len(dataset.catalog),
        **{table: _summarize(table, methods, scores) for table, methods in scores.items()},
        "profiles": {name: sets.greedy.statistics() for name, sets in profiles.items()},
        "sampled_profiles": {name: sets.sampled.statistics() for name, sets in profiles.items() if sets.sampled},
        "seconds": time.monotonic() - started,
        "config": _decisive_keys(config),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
    }
    per_user = _per_user_frame(dataset, sessions, tables, scores)
    written = _profiles_frame(sessions, profiles)
    write_atomically(per_user_path(run, split), per_user.write_parquet)
    write_atomically(profiles_path(run, split), written.write_parquet)
    if split == TEST:
        write_model_cards(run, config, results, dataset.info)
    write_text(results_path(run, split), json.dumps(results, indent=2, allow_nan=False) + "\n")
    return results


@dataclass(frozen=True)
class WrittenProfiles:
    """Profiles of one policy in one decoding, session-major."""

    profiles: Profiles
    copied_shares: np.ndarray
    num_samples: int = 1

    def statistics(self) -> dict[str, float]:
        """Mean number of tokens, share of profiles that did not end in time, mean share of copied words."""
        return {
            "tokens": float(np.mean([len(tokens) for tokens in self.profiles.tokens])),
            "overlong_rate": float(1 - self.profiles.finished.mean()),
            "copied_share": float(self.copied_shares.mean()),
        }


@dataclass(frozen=True)
class ProfileSets:
    """What one policy wrote for the sessions."""

    greedy: WrittenProfiles
    sampled: WrittenProfiles | None


def _write_all_profiles(
    run: Path, config: RunConfig, dataset: Dataset, sessions: Sessions, bar: Callable
) -> dict[str, ProfileSets]:
    """The profiles of the initial and of the trained policy, by method name. One policy is in memory at a time."""
    dtype = COMPUTE_DTYPES[config.engine.precision]
    initial = _write_sets(Policy.load(config.policy, dtype), BASELINE, config, dataset, sessions, bar)
    if not config.trains_policy:
        return {BASELINE: initial, config.method: initial}
    policy = Policy.from_folder(run / "policy", config.policy, dtype)
    return {BASELINE: initial, config.method: _write_sets(policy, config.method, config, dataset, sessions, bar)}


def _write_sets(
    policy: Policy, name: str, config: RunConfig, dataset: Dataset, sessions: Sessions, bar: Callable
) -> ProfileSets:
    """One greedy profile per session, and the sampled ones the recipe asks for.

    Samples are seeded by session, so both policies read the same random numbers for a session.
    """
    own = sessions.take(np.arange(len(sessions))[shard(sessions)])
    prompts = encode_prompts(policy, dataset, own, config.profile)
    titles = ["\n".join(dataset.catalog.titles[item] for item in history) for history in own.histories]
    temperatures = [0.0] + [config.profile.temperature] * config.evaluation.samples
    with bar(len(prompts) * len(temperatures), f"{name}: profiles") as advance:
        written_here = write_profiles(
            policy,
            prompts,
            max_tokens=config.profile.max_tokens,
            temperatures=temperatures,
            seeds=[session_seed(config.seed, int(session)) for session in own.session_ids],
            token_budget=config.profile.token_budget,
            on_batch=lambda written: advance(len(written)),
        )
    copied_here = [copied_share(text, titles[i // len(temperatures)]) for i, text in enumerate(written_here.texts)]
    parts, shares = zip(*gather_objects((written_here, copied_here)), strict=True)
    profiles, copied = Profiles.joined(parts), np.concatenate(shares)

    def written(rows: np.ndarray) -> WrittenProfiles:
        """The profiles at `rows` (sessions, samples)."""
        return WrittenProfiles(profiles.take(rows.ravel()), copied[rows.ravel()], rows.shape[1])

    rows = np.arange(len(profiles)).reshape(len(sessions), len(temperatures))
    return ProfileSets(written(rows[:, :1]), written(rows[:, 1:]) if config.evaluation.samples else None)


def _rank_all(
    run: Path,
    config: RunConfig,
    dataset: Dataset,
    sessions: Sessions,
    profiles: dict[str, ProfileSets],
    bar: Callable,
) -> dict[str, Ranks]:
    """The ranks of every table, histories excluded. Each embedder encodes the catalog once."""
    dtype = COMPUTE_DTYPES[config.engine.precision]
    method = config.method
    before, after = profiles[BASELINE], profiles[method]
    tables: dict[str, Ranks] = {
        "methods": {
            "Random": random.rank(dataset, sessions, seed=config.seed)[:, None],
            "MP": most_popular.rank(dataset, sessions)[:, None],
        },
        "sampled": {},
        "parts": {},
    }
    joint = config.trains_policy and config.trains_embedder
    with bar(4 + 2 * joint, "ranking") as advance:

        def ranks(recommender: Recommender, written: WrittenProfiles) -> np.ndarray:
            targets = np.repeat(sessions.targets, written.num_samples)
            histories = np.repeat(sessions.histories, written.num_samples, axis=0)
            return recommender.ranks(written.profiles.texts, targets, histories).reshape(len(sessions), -1)

        embedder = Embedder.load(config.embedder, dtype)
        recommender = Recommender(embedder, embedder.encode_items(dataset.catalog.texts))
        advance()
        tables["methods"]["EMB-0"] = embedding.rank(dataset, sessions, recommender=recommender)[:, None]
        tables["methods"][BASELINE] = ranks(recommender, before.greedy)
        advance()
        if before.sampled:
            tables["sampled"][BASELINE] = ranks(recommender, before.sampled)
        if joint:
            only_policy = ranks(recommender, after.greedy)
            advance()
        if config.trains_embedder:
            embedder = Embedder.from_folder(run / "embedder", config.embedder, dtype)
            recommender = Recommender(embedder, embedder.encode_items(dataset.catalog.texts))
        advance()
        tables["methods"][method] = ranks(recommender, after.greedy)
        if after.sampled:
            tables["sampled"][method] = ranks(recommender, after.sampled)
        advance()
        if joint:
            tables["parts"] = {"contrastive": ranks(recommender, before.greedy), "rlso": only_policy}
            advance()
    return tables


def _summarize(table: str, methods: dict[str, Result], scores: dict[str, dict[str, Result]]) -> dict[str, Any]:
    """A table against LangPTune-0 in the same decoding; parts are greedy."""
    if not methods:
        return {}
    return summarize(methods, scores["sampled" if table == "sampled" else "methods"][BASELINE])


def _per_user_frame(
    dataset: Dataset, sessions: Sessions, tables: dict[str, Ranks], scores: dict[str, dict[str, Result]]
) -> pl.DataFrame:
    """One row for each table, method and session: the score, and the ranks it is the mean of."""
    frames = [
        pl.DataFrame(
            {
                "table": table,
                "method": method,
                "session_id": sessions.session_ids,
                "user_id": sessions.user_ids.to_list(),
                "target": [dataset.catalog.item_ids[item] for item in sessions.targets],
                "ranks": ranks.tolist(),
                **scores[table][method].per_user,
            }
        )
        for table, methods in tables.items()
        for method, ranks in methods.items()
    ]
    return pl.concat(frames)


def _profiles_frame(sessions: Sessions, profiles: dict[str, ProfileSets]) -> pl.DataFrame:
    """One row for each profile; `sample` counts the sampled ones of a session from 0."""
    frames = []
    for method, sets in profiles.items():
        for decoding, written in (("greedy", sets.greedy), ("sampled", sets.sampled)):
            if not written:
                continue
            frames.append(
                pl.DataFrame(
                    {
                        "policy": method,
                        "decoding": decoding,
                        "session_id": np.repeat(sessions.session_ids, written.num_samples),
                        "user_id": [user for user in sessions.user_ids for _ in range(written.num_samples)],
                        "sample": np.tile(np.arange(written.num_samples), len(sessions)),
                        "text": written.profiles.texts,
                        "tokens": [len(tokens) for tokens in written.profiles.tokens],
                        "finished": written.profiles.finished,
                        "copied_share": written.copied_shares,
                    }
                )
            )
    return pl.concat(frames)


def check_trained(run: Path, models: Sequence[str] = ("policy", "embedder")) -> None:
    """Raise `RunError` when `run` lacks one of its trained `models`."""
    for name in models:
        if not (run / name).is_dir():
            raise RunError(
                f"{run} has no trained {name}: there is no folder {name} in it, so training has not finished. "
                f"Continue it with `langptune train --output {run} --resume`."
            )


def session_seed(seed: int, session: int) -> int:
    """The seed of a session's sampled profiles, whichever policy writes them."""
    words = [int.from_bytes(b"evaluation", "little"), seed, session]
    return int(np.random.SeedSequence(words).generate_state(2, np.uint64)[0])


def _decisive_keys(config: RunConfig) -> dict[str, Any]:
    """The keys that a reader of the results asks for first; all are in config.toml."""
    return {
        "seed": config.seed,
        "method": config.method,
        "iterations": config.iterations,
        "data": config.data.source,
        "policy": config.policy.model,
        "embedder": config.embedder.model,
        "max_tokens": config.profile.max_tokens,
        "temperature": config.profile.temperature,
        "samples": config.evaluation.samples,
        "k": config.evaluation.k,
    }


def _no_progress(total: int, description: str) -> AbstractContextManager[Callable[..., None]]:
    return nullcontext(lambda n=1, note="": None)
