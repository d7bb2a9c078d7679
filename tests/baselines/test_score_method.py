"""Ranks of scores against sorting, and against the index of the core."""

import numpy as np
import pytest
from tests.baselines.structured import ranks_by_sorting, structured

from langptune_rs import ItemIndex
from langptune_rs.baselines import score_method
from langptune_rs.baselines.score_method import ScoreMethod, ranks_of
from langptune_rs.errors import InputError


class Fixed(ScoreMethod):
    """Scores that depend on the last item alone, with many ties."""

    name = "Fixed"
    num_items = 120

    def __init__(self):
        self.blocks = []
        self.table = np.random.default_rng(0).integers(-3, 4, size=(120, 120)).astype(np.float32)

    def fit(self, dataset, config, seed, checkpoint=None): ...
    def save(self, folder): ...
    @classmethod
    def open(cls, folder, dataset): ...

    def scores(self, histories):
        self.blocks.append(len(histories))
        return self.table[histories[:, -1]]


def test_ranks_are_those_of_a_sorted_list_and_of_the_index():
    sessions, method = structured(200).sessions, Fixed()
    ranks = method.score_targets(sessions).ranks
    assert ranks.dtype == np.int64
    assert ranks[:, 0].tolist() == ranks_by_sorting(method.table[sessions.histories[:, -1]], sessions)
    users = np.eye(120, dtype=np.float32)[sessions.histories[:, -1]]
    index = ItemIndex(np.ascontiguousarray(method.table.T))
    assert ranks[:, 0].tolist() == index.rank(users, sessions.targets, exclude=sessions.histories).tolist()


def test_sessions_are_scored_in_blocks(monkeypatch):
    sessions, method = structured(200).sessions, Fixed()
    whole = method.score_targets(sessions).ranks.tolist()
    monkeypatch.setattr(score_method, "SCORES_PER_BLOCK", 7 * 120 + 5)
    assert method.score_targets(sessions).ranks.tolist() == whole
    assert method.blocks == [200, *[7] * 28, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.targets.__setitem__(3, 120), "120"),
        (lambda s: s.targets.__setitem__(3, -1), "-1"),
        (lambda s: s.histories.__setitem__((3, 1), 500), "500"),
        (lambda s: s.targets.__setitem__(3, s.histories[3, 0]), "row 3: the target .* is in the history"),
    ],
)
def test_items_that_cannot_be_ranked_are_refused(change, message):
    sessions = structured(8).sessions
    change(sessions)
    with pytest.raises(InputError, match=message):
        Fixed().score_targets(sessions)


def test_an_item_twice_in_a_history_leaves_the_list_once():
    scores = np.array([[5, 4, 3, 2]], dtype=np.float32)
    assert ranks_of(scores, np.array([3]), np.array([[0, 0, 0, 0]])).tolist() == [3]


def test_scores_that_are_no_numbers_are_our_own_fault():
    with pytest.raises(AssertionError, match="NaN"):
        ranks_of(np.array([[0, np.nan]], dtype=np.float32), np.array([1]), np.array([[0]]))
