"""Which methods of a run are compared with which, and by how much they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langptune_rs.baselines.emb_0 import Emb0
from langptune_rs.baselines.method import Decoding
from langptune_rs.baselines.most_popular import MostPopular
from langptune_rs.evaluation.summary import compare_sessions
from langptune_rs.runs.results import BASELINE, PARTS

Scores = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""{method: {metric: (n_sessions,)}}"""


def compare_methods(tables: Mapping[str, Scores], method: str, users: ArrayLike) -> list[dict[str, Any]]:
    """The rows of "comparisons" in results.json: those of `compare_sessions`, with their "decoding", by plain names.

    What a run has trained, `method` and its parts, is compared with LangPTune-0, EMB-0 and Most Popular. Before that
    `method` is compared with its parts. LangPTune less the trained embedder with the initial policy is the policy's own
    gain: the embedder is the same. LangPTune less the initial embedder with the trained policy is the embedder's.

    Args:
        tables: the scores of each table of results.json.
        method: the method that the run has trained.
        users: the user of each session.
    """
    rows = []
    for decoding in get_args(Decoding):
        scores = scores_of(tables, decoding)
        for row in compare_sessions(scores, _pairs(scores, method), users):
            rows.append({"method": row["method"], "other": row["other"], "decoding": decoding, **row})
    return rows


def scores_of(tables: Mapping[str, Scores], decoding: Decoding) -> Scores:
    """All methods in one decoding, by plain names. Methods that write nothing are in both; none are without samples."""
    parts = {PARTS[part]: scores for part, scores in tables[_PARTS_IN[decoding]].items()}
    if decoding == "greedy":
        return {**tables["methods"], **parts}
    return {**tables["methods"], **tables["sampled"], **parts} if tables["sampled"] else {}


_PARTS_IN = {"greedy": "parts", "sampled": "sampled_parts"}


def _pairs(names: Iterable[str], method: str) -> list[tuple[str, str]]:
    there = set(names)
    if method not in there:
        return []
    parts = [part for part in PARTS.values() if part in there]
    others = [other for other in (BASELINE, Emb0.name, MostPopular.name) if other in there]
    return [(method, part) for part in parts] + [(own, other) for own in (method, *parts) for other in others]
