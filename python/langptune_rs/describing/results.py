"""What the judging of catalogs comes to: means, intervals and tests, averaged over seeds for each session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.describing.judging import (
    CATALOGS,
    INITIAL,
    METADATA,
    PAIRS,
    REVIEWS,
    TRAINED,
    Judge,
    Judged,
    beside_metadata,
    catalog_texts,
)
from langptune_rs.describing.reviews import Reviews
from langptune_rs.describing.users import users_with_texts
from langptune_rs.describing.writing import Written
from langptune_rs.evaluation.significance import bootstrap_intervals
from langptune_rs.evaluation.summary import compare_sessions, with_holm
from langptune_rs.experiments.kept import Kept
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.runs.saved_models import version_of_saved


@dataclass(frozen=True, eq=False)
class JudgedCatalogs:
    """The sessions of a split in every catalog, in that of each of `seeds` where a policy was trained."""

    split: str
    split_size: int
    k: int
    seeds: Sequence[int]
    sessions: Sessions
    num_with_description: int
    """Sessions whose target has one."""
    catalogs: Mapping[str, Sequence[Judged]]

    @classmethod
    def of(
        cls, config: RunConfig, dataset: Dataset, reviews: Reviews, written: Written, split: str, kept: Kept
    ) -> JudgedCatalogs:
        sessions, users = users_with_texts(config, dataset, split, config.evaluation.max_sessions)
        embedder = Embedder.load(config.embedder, COMPUTE_DTYPES[config.engine.precision])
        decides = {"embedder": _identity(config), "precision": config.engine.precision}
        judge = Judge(embedder, decides, sessions, users, kept, config.evaluation.k)
        metadata = dataset.catalog.texts.to_list()
        own = [metadata[item] for item in reviews.items.tolist()]
        texts = {
            REVIEWS: [["\n".join(of_item) for of_item in reviews.texts]],
            INITIAL: [written[INITIAL]["text"].to_list()],
            TRAINED: [table["text"].to_list() for seed, table in written.items() if seed != INITIAL],
        }
        judged = {METADATA: [judge.judge(METADATA, metadata)]}
        for name, versions in texts.items():
            joined = [list(map(judge.joined, own, version)) for version in versions]
            for catalog, of_items in ((name, versions), (beside_metadata(name), joined)):
                judged[catalog] = [
                    judge.judge(catalog, catalog_texts(metadata, reviews.items, version)) for version in of_items
                ]
        return cls(
            split=split,
            split_size=dataset.sessions.splits.count(split),
            k=config.evaluation.k,
            seeds=[seed for seed in written if isinstance(seed, int)],
            sessions=sessions,
            num_with_description=int(np.isin(sessions.targets, reviews.items).sum()),
            catalogs={name: judged[name] for name in CATALOGS},
        )

    def scores(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """{catalog: {metric: (n_sessions,)}}, averaged over the seeds."""
        return {
            name: {metric: np.mean([own.scores[metric] for own in versions], axis=0) for metric in versions[0].scores}
            for name, versions in self.catalogs.items()
        }

    def ranks(self) -> dict[str, dict[int, list[int]]]:
        """{catalog: {item: ranks}}: those of each item for the sessions whose target it is, by the first seed."""
        found: dict[str, dict[int, list[int]]] = {}
        for name, versions in self.catalogs.items():
            of_items = found.setdefault(name, {})
            for item, rank in zip(self.sessions.targets.tolist(), versions[0].ranks.tolist(), strict=True):
                of_items.setdefault(item, []).append(rank)
        return found

    def results(self) -> dict[str, Any]:
        """The part of results.json that says how the catalogs rank."""
        scores, users = self.scores(), self.sessions.user_ids.to_list()
        return {
            "split": self.split,
            "split_size": self.split_size,
            "num_sessions": len(users),
            "num_users": len(set(users)),
            "num_sessions_described": self.num_with_description,
            "k": self.k,
            "catalogs": {name: self._catalog(name, own, users) for name, own in scores.items()},
            "comparisons": [
                {**row, **self._between_seeds(row)} for row in with_holm(compare_sessions(scores, PAIRS, users))
            ],
        }

    def _catalog(self, name: str, scores: Mapping[str, NDArray[np.float64]], users: list[str]) -> dict[str, Any]:
        intervals = bootstrap_intervals(scores, clusters=users)
        metrics = {
            metric: {"mean": float(values.mean()), "low": intervals[metric][0], "high": intervals[metric][1]}
            for metric, values in scores.items()
        }
        return {"cut_share": float(np.mean([own.cut_share for own in self.catalogs[name]])), "metrics": metrics}

    def _between_seeds(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The difference of a comparison with each seed, and how far the seeds are apart."""
        metric = row["metric"]
        versions, others = self.catalogs[row["method"]], self.catalogs[row["other"]]
        num_seeds = max(len(versions), len(others))
        pairs = zip(
            *(own if len(own) == num_seeds else list(own) * num_seeds for own in (versions, others)), strict=True
        )
        differences = [float((own.scores[metric] - other.scores[metric]).mean()) for own, other in pairs]
        return {"by_seed": differences, "seed_sd": float(np.std(differences, ddof=1)) if num_seeds > 1 else None}

    def per_user(self, dataset: Dataset) -> pl.DataFrame:
        """One row for each catalog, seed and session; the seed is null where no policy was trained."""
        sessions, item_ids = self.sessions, dataset.catalog.item_ids
        frames = [
            pl.DataFrame(
                {
                    "catalog": name,
                    "seed": pl.Series([seed], dtype=pl.Int64),
                }
            ).join(
                pl.DataFrame(
                    {
                        "session_id": sessions.session_ids,
                        "user_id": sessions.user_ids.to_list(),
                        "target": [item_ids[target] for target in sessions.targets.tolist()],
                        "rank": own.ranks,
                        **own.scores,
                    }
                ),
                how="cross",
            )
            for name, versions in self.catalogs.items()
            for seed, own in zip(self.seeds if TRAINED in name else [None], versions, strict=True)
        ]
        return pl.concat(frames)


def _identity(config: RunConfig) -> dict[str, Any]:
    """All that decides what the embedder returns: its settings, and of a run's own the hash of its files."""
    run = config.description.users_of
    version = {} if run is None else {"version": version_of_saved(Path(run), ["embedder"])}
    return {**config.embedder.model_dump(mode="json"), **version}
