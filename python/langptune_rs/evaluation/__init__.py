"""From embeddings to ranks, from ranks to metrics, from metrics to what they prove."""

from langptune_rs.evaluation.arrays import Ragged
from langptune_rs.evaluation.beyond_accuracy import coverage, gini, novelty
from langptune_rs.evaluation.comparison import Comparison, compare
from langptune_rs.evaluation.index import ItemIndex
from langptune_rs.evaluation.result import Result, evaluate
from langptune_rs.evaluation.shards import ShardedIndex, merge_candidates

__all__ = [
    "Comparison",
    "ItemIndex",
    "Ragged",
    "Result",
    "ShardedIndex",
    "compare",
    "coverage",
    "evaluate",
    "gini",
    "merge_candidates",
    "novelty",
]
