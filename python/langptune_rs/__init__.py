"""Exact ranking over a whole catalog, ranking metrics with their uncertainty, and sequence packing.

    index = langptune_rs.ItemIndex(item_embeddings)
    ranks = index.rank(user_embeddings, targets, exclude=histories)
    result = langptune_rs.evaluate(ranks, ["ndcg@20", "mrr@20"])
    result.mean["ndcg@20"]

Evaluating a recommender needs nothing else, and this imports nothing heavier than numpy. Training, data and models are
in packages of their own, which are imported by name, such as `langptune_rs.training`.
"""

from langptune_rs.evaluation import (
    Comparison,
    ItemIndex,
    Ragged,
    Result,
    ShardedIndex,
    ShardOnDisk,
    compare,
    evaluate,
)
from langptune_rs.packing import MicroBatch, PackedBatch, Packing, pack_sequences

__all__ = [
    "Comparison",
    "ItemIndex",
    "MicroBatch",
    "PackedBatch",
    "Packing",
    "Ragged",
    "Result",
    "ShardOnDisk",
    "ShardedIndex",
    "compare",
    "evaluate",
    "pack_sequences",
]


def __getattr__(name: str) -> str:
    """`__version__` as installed, read on first use so that the import stays cheap."""
    if name == "__version__":
        from importlib.metadata import version

        return version("langptune-rs")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
