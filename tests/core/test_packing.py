"""pack_sequences: every sequence once, never over capacity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs import pack_sequences
from langptune_rs.errors import InputError


@given(st.lists(st.integers(0, 50), max_size=200), st.integers(50, 90))
def test_every_sequence_once_and_no_bin_over_capacity(lengths, capacity):
    packing = pack_sequences(lengths, capacity)
    bins = [row.tolist() for row in packing.bins]
    assert sorted(index for row in bins for index in row) == list(range(len(lengths)))
    assert all(row == sorted(row) for row in bins)
    sizes = [sum(lengths[index] for index in row) for row in bins]
    assert all(size <= capacity for size in sizes)
    # Two bins never both half empty: the later one's sequences would have fitted into the first.
    assert sum(2 * size <= capacity for size in sizes) <= 1
    assert len(packing) == len(bins)
    if bins:
        assert packing.fill == pytest.approx(sum(lengths) / (len(bins) * capacity))


def test_best_fit_decreasing_by_hand():
    packing = pack_sequences(np.array([6, 3, 7, 4], dtype=np.int32), 10)
    assert [row.tolist() for row in packing.bins] == [[1, 2], [0, 3]]
    assert (packing.fill, packing.capacity) == (1.0, 10)
    assert packing.lengths.tolist() == [6, 3, 7, 4]


def test_nothing_to_pack():
    packing = pack_sequences([], 10)
    assert (len(packing), packing.fill, list(packing.bins)) == (0, 1.0, [])


@pytest.mark.parametrize(
    ("lengths", "capacity", "message"),
    [
        ([3, 11, 12], 10, r"lengths\[1\] is 11 tokens, more than the capacity of 10: .* nothing is cut silently"),
        ([3, -2], 10, r"lengths\[1\] is -2"),
        ([3.0], 10, r"lengths has shape \(1,\) and type float64"),
        ([[3]], 10, r"lengths has shape \(1, 1\)"),
        ([3], 0, r"capacity = 0: pass a whole number of tokens, at least 1"),
        ([3], 10.0, r"capacity = 10.0"),
    ],
)
def test_bad_input(lengths, capacity, message):
    with pytest.raises(InputError, match=message):
        pack_sequences(lengths, capacity)
