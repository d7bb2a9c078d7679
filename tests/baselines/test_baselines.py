"""Random, Most Popular and EMB-0 against what they claim to compute."""

import math

import numpy as np
import pytest
from tests.baselines.structured import (
    check_better_than_random,
    check_like_random,
    dataset_of,
    structured,
    without_structure,
)

from langptune_rs.baselines.emb_0 import Emb0
from langptune_rs.baselines.method import Method
from langptune_rs.baselines.most_popular import MostPopular
from langptune_rs.baselines.random import Random
from langptune_rs.data import Catalog, Dataset, Sessions
from langptune_rs.data.wording.templates import make_template
from langptune_rs.recommending.recommender import Recommender

NUM_ITEMS, HISTORY = 50, 4


def make_dataset(num_sessions: int, seed: int = 0) -> Dataset:
    """Sessions over a catalog whose popularities have many ties."""
    generator = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, NUM_ITEMS + 1)
    rows = np.stack(
        [
            generator.choice(NUM_ITEMS, HISTORY + 1, replace=False, p=weights / weights.sum())
            for _ in range(num_sessions)
        ]
    ).astype(np.int32)
    sessions = Sessions(
        session_ids=np.arange(num_sessions, dtype=np.int64),
        user_ids=[f"u{i}" for i in range(num_sessions)],
        histories=rows[:, :HISTORY],
        ratings=np.full((num_sessions, HISTORY), np.nan, dtype=np.float32),
        reviews=[[None] * HISTORY for _ in range(num_sessions)],
        targets=rows[:, HISTORY],
        splits=["train" if i % 2 else "test" for i in range(num_sessions)],
    )
    titles = [f"Item {i} of shelf {i % 7}" for i in range(NUM_ITEMS)]
    catalog = Catalog([f"i{i}" for i in range(NUM_ITEMS)], titles, [f"Title: {title}" for title in titles], titles)
    return Dataset(catalog, sessions, make_template("generic", has_ratings=False, has_reviews=False), {})


def fitted(method: Method, dataset: Dataset, seed: int = 0) -> Method:
    """The method with its default settings."""
    method.fit(dataset, method.Config(), seed)
    return method


class LetterCounts:
    """An embedder whose vectors are the unit-length counts of a text's letters and digits."""

    def _encode(self, texts):
        symbols = "abcdefghijklmnopqrstuvwxyz0123456789"
        counts = np.array([[text.lower().count(symbol) for symbol in symbols] for text in texts], dtype=np.float64)
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)

    encode_items = encode_profiles = _encode


def test_random_ranks_are_uniform_over_what_is_left():
    dataset = make_dataset(4000)
    num_left = NUM_ITEMS - HISTORY
    ranks = fitted(Random(), dataset, seed=3).score_targets(dataset.sessions).ranks[:, 0]
    standard_error = math.sqrt((num_left**2 - 1) / 12 / len(ranks))
    assert abs(ranks.mean() - (num_left + 1) / 2) < 4 * standard_error
    counts = np.bincount(ranks, minlength=num_left + 1)
    assert counts[0] == 0
    assert len(counts) == num_left + 1
    expected = len(ranks) / num_left
    chi_square = ((counts[1:] - expected) ** 2 / expected).sum()
    assert chi_square < num_left - 1 + 4 * math.sqrt(2 * (num_left - 1))


def test_random_gives_a_session_its_rank_whoever_else_is_ranked():
    dataset = make_dataset(200)
    ranks = fitted(Random(), dataset).score_targets(dataset.sessions).ranks[:, 0]
    some = [7, 150, 3]
    assert (
        fitted(Random(), dataset).score_targets(dataset.sessions.take(some)).ranks[:, 0].tolist()
        == ranks[some].tolist()
    )
    assert fitted(Random(), dataset, seed=1).score_targets(dataset.sessions).ranks[:, 0].tolist() != ranks.tolist()


@pytest.mark.parametrize("num_sessions", [3, 20, 500])
def test_most_popular_is_the_sorted_list_without_the_history(num_sessions):
    dataset = make_dataset(num_sessions, seed=num_sessions)
    ranks = fitted(MostPopular(), dataset).score_targets(dataset.sessions).ranks[:, 0]
    order = sorted(range(NUM_ITEMS), key=lambda item: (-dataset.popularity[item], item))
    for rank, history, target in zip(ranks, dataset.sessions.histories, dataset.sessions.targets, strict=True):
        left = [item for item in order if item not in set(history.tolist())]
        assert left[rank - 1] == target


def test_most_popular_ranks_far_above_random_where_few_items_are_popular_and_as_random_where_none_is():
    generator = np.random.default_rng(0)
    shares = 1 / np.arange(1, 121) ** 1.5
    rows = np.stack([generator.choice(120, 5, replace=False, p=shares / shares.sum()) for _ in range(800)])
    splits = ["test" if i % 4 == 0 else "train" for i in range(800)]
    skewed = dataset_of(rows, splits, 120)
    check_better_than_random(fitted(MostPopular(), skewed), skewed.sessions.select("test"), 120)
    level = without_structure(structured(1200))
    check_like_random(fitted(MostPopular(), level), level.sessions.select("test"), len(level.catalog))


def test_most_popular_does_not_know_held_out_targets():
    dataset = make_dataset(40)
    held_out = [i for i, split in enumerate(dataset.sessions.splits) if split == "test"]
    counts = np.zeros(NUM_ITEMS, dtype=int)
    for i, (history, target) in enumerate(zip(dataset.sessions.histories, dataset.sessions.targets, strict=True)):
        counts[history] += 1
        counts[target] += i not in held_out
    assert dataset.popularity.tolist() == counts.tolist()


def test_an_item_twice_in_a_history_leaves_the_list_once():
    dataset = make_dataset(2)
    top = np.argsort(-dataset.popularity, kind="stable")
    sessions = dataset.sessions.take([0])
    sessions.histories[0] = [top[0], top[0], top[1], top[1]]
    sessions.targets[0] = top[5]
    assert fitted(MostPopular(), dataset).score_targets(sessions).ranks.tolist() == [[4]]
    assert 1 <= fitted(Random(), dataset).score_targets(sessions).ranks[0, 0] <= NUM_ITEMS - 2


def test_emb_0_ranks_by_the_text_of_the_history():
    dataset = make_dataset(60)
    embedder = LetterCounts()
    items = embedder.encode_items(dataset.catalog.texts)
    ranks = Emb0(dataset, Recommender(embedder, items)).score_targets(dataset.sessions).ranks[:, 0]
    items = items.astype(np.float64)
    for i, rank in enumerate(ranks):
        user = embedder.encode_profiles([dataset.session_text(dataset.sessions, i)])[0].astype(np.float64)
        scores = items @ user
        scores[dataset.sessions.histories[i]] = -np.inf
        target = scores[dataset.sessions.targets[i]]
        assert 1 + (scores > target + 1e-6).sum() <= rank <= (scores > target - 1e-6).sum()
