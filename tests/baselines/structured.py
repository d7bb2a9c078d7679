"""Sessions with structure that a method can find, and what all tests of methods ask of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from langptune_rs.baselines.method import Method
from langptune_rs.data import Catalog, Dataset, Sessions
from langptune_rs.data.wording.templates import make_template

NUM_GROUPS, GROUP_SIZE, HISTORY = 12, 10, 4


def dataset_of(rows: np.ndarray, splits: list[str], num_items: int, users: list[str] | None = None) -> Dataset:
    """A data set of sessions (n, H + 1), items oldest first and the target last; each by a user of its own."""
    num_sessions, length = rows.shape
    sessions = Sessions(
        session_ids=np.arange(num_sessions, dtype=np.int64),
        user_ids=users or [f"u{i}" for i in range(num_sessions)],
        histories=rows[:, :-1].astype(np.int32),
        ratings=np.full((num_sessions, length - 1), np.nan, dtype=np.float32),
        reviews=[[None] * (length - 1) for _ in range(num_sessions)],
        targets=rows[:, -1].astype(np.int32),
        splits=splits,
    )
    titles = [f"Item {i} of shelf {i // GROUP_SIZE}" for i in range(num_items)]
    catalog = Catalog([f"i{i}" for i in range(num_items)], titles, titles, titles)
    return Dataset(catalog, sessions, make_template("generic", has_ratings=False, has_reviews=False), {})


def structured(num_sessions: int = 400, seed: int = 0) -> Dataset:
    """Sessions of five items that follow each other in one of twelve rings of ten; every fourth is of test."""
    generator = np.random.default_rng(seed)
    groups = generator.integers(NUM_GROUPS, size=(num_sessions, 1))
    places = (generator.integers(GROUP_SIZE, size=(num_sessions, 1)) + np.arange(HISTORY + 1)) % GROUP_SIZE
    splits = [("test", "validation", "train", "train")[i % 4] for i in range(num_sessions)]
    return dataset_of(groups * GROUP_SIZE + places, splits, NUM_GROUPS * GROUP_SIZE)


def without_structure(dataset: Dataset, seed: int = 0) -> Dataset:
    """The same histories, each with a target drawn from all other items: nothing tells it from them."""
    generator = np.random.default_rng([seed, 1])
    sessions, num_items = dataset.sessions, len(dataset.catalog)
    targets = [
        generator.choice(np.setdiff1d(np.arange(num_items), history)) for history in np.asarray(sessions.histories)
    ]
    rows = np.column_stack([sessions.histories, targets])
    return dataset_of(rows, sessions.splits.to_list(), num_items)


def distinct_sessions(num_sessions: int = 50, num_items: int = 120, seed: int = 0) -> Dataset:
    """Train sessions of random items, to learn by heart."""
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.permutation(num_items)[: HISTORY + 1] for _ in range(num_sessions)])
    return dataset_of(rows, ["train"] * num_sessions, num_items)


def ndcg(ranks: np.ndarray, k: int = 20) -> float:
    """Mean NDCG@k for one target a session."""
    return float(np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0).mean())


def random_ndcg(num_left: int, k: int = 20) -> tuple[float, float]:
    """(mean, standard deviation) of one session's NDCG@k for a rank uniform over 1..num_left."""
    gains = np.where(np.arange(1, num_left + 1) <= k, 1 / np.log2(np.arange(1, num_left + 1) + 1.0), 0.0)
    return float(gains.mean()), float(gains.std())


def check_better_than_random(method: Method, sessions: Sessions, num_items: int) -> None:
    """The method's NDCG@20 is far above that of Random: at least three times, and ten standard errors."""
    ranks = method.score_targets(sessions).ranks[:, 0]
    mean, deviation = random_ndcg(num_items - HISTORY)
    assert ndcg(ranks) > max(3 * mean, mean + 10 * deviation / np.sqrt(len(sessions)))


def check_like_random(method: Method, sessions: Sessions, num_items: int) -> None:
    """Mean rank and NDCG@20 are those of Random, within four standard errors."""
    ranks = method.score_targets(sessions).ranks[:, 0]
    num_left = num_items - HISTORY
    mean, deviation = random_ndcg(num_left)
    assert abs(ndcg(ranks) - mean) < 4 * deviation / np.sqrt(len(ranks))
    assert abs(ranks.mean() - (num_left + 1) / 2) < 4 * np.sqrt((num_left**2 - 1) / 12 / len(ranks))


def ranks_by_sorting(scores: np.ndarray, sessions: Sessions) -> list[int]:
    """The place of each target in the list of items outside the history sorted by (-score, index), from 1."""
    ranks = []
    for row, history, target in zip(scores, sessions.histories, sessions.targets, strict=True):
        left = [item for item in range(len(row)) if item not in set(history.tolist())]
        ranks.append(1 + sorted(left, key=lambda item: (-row[item], item)).index(target))
    return ranks


def check_saved(method: Method, dataset: Dataset, folder: Path) -> None:
    """The method ranks the same to the bit after it was saved and opened, and without pickled files."""
    folder.mkdir()
    method.save(folder)
    assert {file.suffix for file in folder.iterdir()} <= {".npy", ".npz", ".json", ".safetensors"}
    for file in folder.iterdir():
        if file.suffix in {".npy", ".npz"}:
            np.load(file, allow_pickle=False)
    ranks, log_probs = method.score_targets(dataset.sessions)
    opened = type(method).open(folder, dataset).score_targets(dataset.sessions)
    assert opened.ranks.tolist() == ranks.tolist()
    assert (log_probs is None) == (opened.log_probs is None)
    if log_probs is not None:
        assert opened.log_probs.tobytes() == log_probs.tobytes()


def check_one_by_one(method: Method, sessions: Sessions) -> None:
    """A session's rank does not depend on which others are ranked, nor the order."""
    ranks = method.score_targets(sessions).ranks[:, 0]
    rows = [17, 3, len(sessions) - 1]
    assert method.score_targets(sessions.take(rows)).ranks[:, 0].tolist() == ranks[rows].tolist()
    for row in rows:
        assert method.score_targets(sessions.take([row])).ranks.item() == ranks[row]


def check_history_never_counts(method: Method, dataset: Dataset) -> None:
    """All items outside a history have the ranks from 1 to their number, so that those of the history have none."""
    session = dataset.sessions.take([5])
    others = np.setdiff1d(np.arange(len(dataset.catalog)), session.histories[0])
    all_targets = dataset.sessions.take([5] * len(others))
    all_targets.targets[:] = others
    ranks = method.score_targets(all_targets).ranks[:, 0]
    assert sorted(ranks.tolist()) == list(range(1, len(others) + 1))
