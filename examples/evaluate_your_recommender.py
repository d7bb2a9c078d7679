"""Evaluate a recommender of your own over all items: python examples/evaluate_your_recommender.py.

The recommender here is a small matrix factorisation. Any model will do that has a vector for each item and one for
each user. Most Popular is the one to beat. The sessions are those of MovieLens-100K, from the package recbole.
"""

from tempfile import TemporaryDirectory

import numpy as np

from langptune_rs import ItemIndex, Result, compare, evaluate
from langptune_rs.config.data import make_config
from langptune_rs.data import Dataset, Sessions, prepare

METRICS = ["ndcg@20", "mrr@20", "recall@20"]


def item_factors(data: Dataset, dim: int = 32) -> np.ndarray:
    """Your model: vectors of all items, float32 (n_items, dim), learned from the train sessions."""
    train = data.sessions.select("train")
    items = np.column_stack([train.histories, train.targets])
    together = np.zeros((len(data.catalog), len(data.catalog)))
    for first in range(items.shape[1]):
        for second in range(items.shape[1]):
            np.add.at(together, (items[:, first], items[:, second]), first != second)
    counts = together.sum(0) + 1.0
    values, vectors = np.linalg.eigh(together / np.sqrt(np.outer(counts, counts)))
    return (vectors[:, -dim:] * np.sqrt(np.abs(values[-dim:]))).astype(np.float32)


def score(item_vectors: np.ndarray, user_vectors: np.ndarray, sessions: Sessions) -> Result:
    """Rank each target among all items outside the history, then turn ranks into metrics."""
    index = ItemIndex(np.ascontiguousarray(item_vectors))
    return evaluate(index.rank(user_vectors, sessions.targets, exclude=sessions.histories), METRICS)


def main() -> None:
    """Prints each metric with its interval, then what the paired test says."""
    with TemporaryDirectory() as folder:
        settings = make_config(windows="all", max_item_tokens=None, max_history_tokens=None)
        data = prepare("ml-100k", f"{folder}/data", settings)
        test = data.sessions.select("test")
        factors = item_factors(data)
        popularity = data.popularity.astype(np.float32)[:, None]
        results = {
            "factors": score(factors, factors[test.histories].mean(1), test),
            "most popular": score(popularity, np.ones((len(test), 1), np.float32), test),
        }
    for name, result in results.items():
        for metric in METRICS:
            low, high = result.confidence_interval(metric)
            print(f"{name:<13}{metric:<10}{result.mean[metric]:.4f} [{low:.4f}, {high:.4f}]")
    print(compare(results, metric="ndcg@20"))


if __name__ == "__main__":
    main()
