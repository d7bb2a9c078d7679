"""From embeddings to ranks, from ranks to metrics, from metrics to intervals and tests."""

from langptune_rs.arrays import Ragged
from langptune_rs.evaluation.beyond_accuracy import coverage, gini, novelty
from langptune_rs.evaluation.comparison import Comparison, compare
from langptune_rs.evaluation.index import ItemIndex, TargetScores
from langptune_rs.evaluation.metrics import from_ranks
from langptune_rs.evaluation.result import Result, evaluate
from langptune_rs.evaluation.shards import ShardedIndex, ShardOnDisk, merge_candidates
from langptune_rs.evaluation.significance import (
    bootstrap_interval,
    bootstrap_intervals,
    holm,
    paired_permutation_test,
    paired_t_test,
)

__all__ = [
    "Comparison",
    "ItemIndex",
    "Ragged",
    "Result",
    "ShardOnDisk",
    "ShardedIndex",
    "TargetScores",
    "bootstrap_interval",
    "bootstrap_intervals",
    "compare",
    "coverage",
    "evaluate",
    "from_ranks",
    "gini",
    "holm",
    "merge_candidates",
    "novelty",
    "paired_permutation_test",
    "paired_t_test",
]
