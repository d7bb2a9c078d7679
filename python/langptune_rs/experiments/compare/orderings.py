"""Five orderings of the paper's table 1: what the training of either model adds, and of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from numpy.typing import ArrayLike

from langptune_rs.baselines.emb_0 import Emb0
from langptune_rs.baselines.emb_cl import EmbCl
from langptune_rs.baselines.langptune import LangPTune, LangPTune0, LangPTuneCl, LangPTuneRlso
from langptune_rs.baselines.method import Decoding, Method
from langptune_rs.baselines.most_popular import MostPopular
from langptune_rs.evaluation.summary import LOWER_IS_BETTER, SIGNIFICANT, compare_sessions, with_holm
from langptune_rs.experiments.compare.rows import Compared

TABLE_1 = "table 1"
_PAIRS: dict[str, tuple[tuple[type[Method], type[Method]], ...]] = {
    TABLE_1: (
        (LangPTuneCl, LangPTune0),
        (LangPTuneRlso, LangPTune0),
        (LangPTune, LangPTune0),
        (LangPTune, LangPTuneCl),
        (LangPTune, LangPTuneRlso),
    ),
    "no profiles": ((LangPTune, MostPopular), (LangPTune, Emb0), (LangPTune, EmbCl)),
}
FAMILIES = {family: tuple((a.name, b.name) for a, b in pairs) for family, pairs in _PAIRS.items()}
"""{family: pairs}: the method that should be ahead, and the other one. LangPTune is also tested against its nearest
rivals that have no profiles: what is popular, and the same embedder reading the history, as it is and trained to."""


def orderings(rows: Sequence[Compared], users: ArrayLike) -> list[dict[str, Any]]:
    """The paired tests of those pairs of `FAMILIES` that are among the rows, in both decodings.

    A row is one of `compare_sessions` with its "family" and "decoding", with "p_holm", corrected over the pairs of one
    family, decoding and metric, and with "holds": whether the first of the pair is ahead with a corrected p below
    `SIGNIFICANT`. Policies that learned by another objective than RLSO are not among it.
    """
    found = []
    for decoding in get_args(Decoding):
        scores = {row.method: row.scores for row in rows if row.decoding in (decoding, None) and not row.objective}
        for family, pairs in FAMILIES.items():
            there = [pair for pair in pairs if set(pair) <= set(scores)]
            for row in with_holm(compare_sessions(scores, there, users)):
                sign = -1 if row["metric"] in LOWER_IS_BETTER else 1
                holds = sign * row["difference"] > 0 and row["p_holm"] < SIGNIFICANT
                found.append({"family": family, "decoding": decoding, **row, "holds": holds})
    return found
