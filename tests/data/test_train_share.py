"""A share of the train sessions: what stays, what goes, and that a smaller share is part of a larger one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.store.dataset import Dataset, train_sessions_in
from langptune_rs.data.store.sessions import SPLITS, Sessions


def dataset_of(splits):
    n = len(splits)
    sessions = Sessions(
        session_ids=np.arange(n) * 3,
        user_ids=[f"u{i // 2}" for i in range(n)],
        histories=np.zeros((n, 1), dtype=np.int32),
        ratings=np.full((n, 1), np.nan, dtype=np.float32),
        reviews=[[None]] * n,
        targets=np.ones(n, dtype=np.int32),
        splits=list(splits),
    )
    return Dataset(catalog=None, sessions=sessions, template=None, info={})


def ids(dataset, split):
    return dataset.sessions.session_ids[dataset.sessions.splits.mask(split)].tolist()


splits = st.lists(st.sampled_from(SPLITS), min_size=1, max_size=40).filter(lambda found: "train" in found)


@given(splits, st.floats(0.001, 1), st.floats(0.001, 1), st.integers(0, 3))
def test_as_many_train_sessions_stay_in_their_order_and_all_others(splits, one, other, seed):
    dataset = dataset_of(splits)
    smaller, larger = (dataset.with_train_share(share, seed) for share in sorted((one, other)))
    every = ids(dataset, "train")
    for share, kept in ((min(one, other), smaller), (max(one, other), larger)):
        assert len(ids(kept, "train")) == train_sessions_in(share, len(every)) == max(1, round(share * len(every)))
        assert [ids(kept, split) for split in ("validation", "test")] == [
            ids(dataset, split) for split in ("validation", "test")
        ]
        assert kept.sessions.session_ids.tolist() == sorted(kept.sessions.session_ids.tolist())
    assert set(ids(smaller, "train")) <= set(ids(larger, "train")) <= set(every)


def test_another_seed_draws_others_and_a_whole_is_the_same_data_set():
    dataset = dataset_of(["train"] * 40)
    assert dataset.with_train_share(1.0, 0) is dataset
    drawn = [ids(dataset.with_train_share(0.25, seed), "train") for seed in range(4)]
    assert len({tuple(found) for found in drawn}) == 4
    assert drawn[0] == ids(dataset.with_train_share(0.25, 0), "train")


@pytest.mark.parametrize(("share", "count"), [(1.0, 200), (0.01, 2), (0.0001, 1)])
def test_a_share_is_the_nearest_whole_number(share, count):
    assert train_sessions_in(share, 200) == count
