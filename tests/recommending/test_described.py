"""Items in place of which a description stands rank as they do in a catalog in which that is written down."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs import ItemIndex
from langptune_rs.errors import InputError
from langptune_rs.recommending.described import Users, score_descriptions, score_in_place
from langptune_rs.recommending.recommender import Recommender

TEMPERATURE = 0.1


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 3))
def test_each_description_ranks_in_a_catalog_of_its_own(seed, num_descriptions, history_length):
    random = np.random.default_rng(seed)
    items, users = unit(random.normal(size=(9, 4))), unit(random.normal(size=(7, 4)))
    described = random.integers(0, 9, num_descriptions)
    histories = np.stack(
        [random.permutation(np.setdiff1d(np.arange(9), described))[:history_length] for _ in range(7)]
    ).astype(np.int32)
    if histories.shape[1] < history_length:
        return
    users_of = [random.permutation(7)[: random.integers(1, 5)] for _ in range(num_descriptions)]
    descriptions = unit(random.normal(size=(num_descriptions, 4)))

    ranks, log_probs = score_in_place(
        items, descriptions, described, users, histories, users_of, temperature=TEMPERATURE
    )
    for d, own in enumerate(users_of):
        catalog = items.copy()
        catalog[described[d]] = descriptions[d]
        targets = np.full(len(own), described[d])
        excluded = histories[own].astype(np.int64)
        expected = ItemIndex(catalog).score_targets(users[own], targets, excluded, temperature=TEMPERATURE)
        assert ranks[d].tolist() == expected.ranks.tolist()
        assert log_probs[d] == pytest.approx(expected.log_probs, abs=1e-7)
        for place, user in enumerate(own):
            scores = catalog.astype(np.float64) @ users[user]
            left = np.setdiff1d(np.arange(9), histories[user])
            share = np.exp(scores[left] / TEMPERATURE)
            assert log_probs[d][place] == pytest.approx(
                np.log(share[left == described[d]] / share.sum()).item(), abs=1e-5
            )
            assert ranks[d][place] == 1 + (scores[left] > scores[described[d]]).sum()


class Letters:
    """An embedder that counts three letters, and what it has been asked."""

    dim = 3

    def __init__(self):
        self.asked = []

    def encode_items(self, texts):
        self.asked.append(list(texts))
        return unit(np.array([[text.count(letter) + 0.1 for letter in "abc"] for text in texts]))

    encode_profiles = encode_items


def test_users_of_an_item_judge_all_of_its_descriptions():
    embedder = Letters()
    recommender = Recommender(embedder, embedder.encode_items(["aab", "b", "c", "bc"]))
    users = [Users(["aaa", "b"], np.array([[1], [2]])), Users(["c"], np.array([[0]]))]
    texts = ["a", "b", "c", "a"]
    ranks, log_probs = score_descriptions(recommender, texts, np.array([0, 3]), users, temperature=TEMPERATURE)
    assert [row.tolist() for row in ranks] == [[1, 3], [2, 2], [2], [3]], "behind items of the same score"
    assert [len(row) for row in log_probs] == [2, 2, 1, 1]
    assert embedder.asked[1:] == [["a", "b", "c"], ["aaa", "b", "c"]], "equal texts are embedded once"


def test_a_user_who_has_seen_the_item_cannot_rank_it():
    items = unit(np.eye(3))
    with pytest.raises(InputError, match="item 1 is in the history"):
        score_in_place(
            items, items[:1], np.array([1]), items[:1], np.array([[1]]), [np.array([0])], temperature=TEMPERATURE
        )
