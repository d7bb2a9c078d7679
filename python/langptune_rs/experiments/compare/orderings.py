"""The orderings of the paper's table 1: what the training of either model adds, and of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from numpy.typing import ArrayLike

from langptune_rs.baselines.emb_0 import Emb0
from langptune_rs.baselines.langptune import LangPTune, LangPTuneCl, LangPTuneRlso
from langptune_rs.baselines.method import Decoding
from langptune_rs.baselines.most_popular import MostPopular
from langptune_rs.evaluation.summary import LOWER_IS_BETTER, compare_sessions, with_holm
from langptune_rs.experiments.compare.rows import Compared
from langptune_rs.runs.results import BASELINE

PAIRS = (
    *((method.name, BASELINE) for method in (LangPTuneCl, LangPTuneRlso, LangPTune)),
    *((LangPTune.name, method.name) for method in (LangPTuneCl, LangPTuneRlso, MostPopular, Emb0)),
)
"""(the method that should be ahead, the other one): table 1's, and LangPTune over two methods without profiles."""
LEVEL = 0.05
"""An ordering holds with a p below this, after Holm's correction."""


def orderings(rows: Sequence[Compared], users: ArrayLike) -> list[dict[str, Any]]:
    """The paired tests of those `PAIRS` that are among the rows, in both decodings: table 1 is one question.

    A row is one of `compare_sessions` with its "decoding", "p_holm", corrected over the pairs of one decoding and
    metric, and "holds": whether the first of the pair is ahead with a corrected p below `LEVEL`.
    """
    found = []
    for decoding in get_args(Decoding):
        scores = {row.method: row.scores for row in rows if row.decoding in (decoding, None)}
        pairs = [pair for pair in PAIRS if set(pair) <= set(scores)]
        for row in with_holm(compare_sessions(scores, pairs, users)):
            sign = -1 if row["metric"] in LOWER_IS_BETTER else 1
            holds = sign * row["difference"] > 0 and row["p_holm"] < LEVEL
            found.append({"method": row["method"], "other": row["other"], "decoding": decoding, **row, "holds": holds})
    return found
