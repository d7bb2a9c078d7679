"""pack_sequences: every sequence once, never over capacity; balanced over ranks; collated as numpy would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs import Packing, Ragged, pack_sequences
from langptune_rs.errors import InputError

LENGTHS = st.lists(st.integers(0, 50), max_size=200)


def bins_of(packing: Packing) -> list[list[int]]:
    return [row.tolist() for row in packing.bins]


def flat_tokens(lengths, dtype=np.int64) -> tuple[np.ndarray, list[np.ndarray]]:
    """Tokens that all differ, flat and by sequence."""
    tokens = np.arange(1000, 1000 + sum(lengths), dtype=dtype)
    return tokens, np.split(tokens, np.cumsum(lengths)[:-1]) if len(lengths) else []


@given(LENGTHS, st.integers(50, 90))
def test_every_sequence_once_and_no_bin_over_capacity(lengths, capacity):
    packing = pack_sequences(lengths, capacity)
    bins = bins_of(packing)
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
    assert bins_of(packing) == [[1, 2], [0, 3]]
    assert (packing.fill, packing.capacity) == (1.0, 10)
    assert packing.lengths.tolist() == [6, 3, 7, 4]
    assert (packing.groups, packing.prefixes, packing.sources) == (None, None, None)


def test_nothing_to_pack():
    packing = pack_sequences([], 10)
    assert (len(packing), packing.fill, list(packing.bins)) == (0, 1.0, [])
    assert len(packing.collate(np.array([], dtype=np.int32))) == 0
    assert [len(rank) for rank in packing.balance(3)] == [0, 0, 0]


def test_sequences_without_tokens_are_packed_too():
    packing = pack_sequences([0, 2, 0], 2)
    assert bins_of(packing) == [[0, 1, 2]]
    (batch,) = packing.collate(np.array([7, 8]))
    assert (batch.cu_seqlens.tolist(), batch.max_seqlen) == ([0, 0, 2, 2], 2)
    assert (batch.segment_ids.tolist(), batch.predictors.tolist()) == ([1, 1], [-1, 0])
    (empty,) = pack_sequences([0, 0], 2).collate(np.array([], dtype=np.int64))
    assert (empty.max_seqlen, empty.predictors.tolist(), empty.attention_mask().shape) == (0, [], (0, 0))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-3, 20)), max_size=60))
def test_groups_stay_together(sequences):
    lengths, groups = [length for length, _ in sequences], [group for _, group in sequences]
    packing = pack_sequences(lengths, 600, groups=groups)
    assert sorted(packing.bins.values.tolist()) == list(range(len(lengths)))
    bin_of = {index: bin for bin, row in enumerate(bins_of(packing)) for index in row}
    assert all(len({bin_of[i] for i in range(len(groups)) if groups[i] == group}) == 1 for group in groups)


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 30))
def test_split_pieces_lie_as_the_sequence_did(lengths, capacity):
    packing = pack_sequences(lengths, capacity, split=True)
    assert np.all(packing.lengths <= capacity)
    assert np.bincount(packing.sources, packing.lengths, len(lengths)).tolist() == lengths
    assert np.all(np.diff(packing.sources) >= 0)
    full = packing.lengths == capacity
    assert np.all(full[:-1] | (np.diff(packing.sources) == 1))  # only the last piece of a sequence is shorter
    tokens, _ = flat_tokens(lengths)
    pieces = np.split(tokens, np.cumsum(packing.lengths)[:-1]) if len(packing.lengths) else []
    rows = Ragged(np.append(0, np.cumsum(lengths, dtype=np.int64)), tokens)
    for batch in packing.collate(rows):
        assert batch.input_ids.tolist() == [token for piece in batch.sequences for token in pieces[piece]]
        assert batch.position_ids.tolist() == [at for piece in batch.sequences for at in range(len(pieces[piece]))]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@given(lengths=LENGTHS)
def test_collate_is_what_numpy_gives(dtype, lengths):
    packing = pack_sequences(lengths, 60)
    tokens, sequences = flat_tokens(lengths, dtype)
    batches = packing.collate(tokens)
    assert len(batches) == len(packing)
    assert batches.input_ids.values.dtype == batches.position_ids.values.dtype == dtype
    assert batches.cu_seqlens.values.dtype == np.int32
    for row, batch in zip(packing.bins, batches, strict=True):
        sizes = [lengths[index] for index in row]
        assert batch.sequences.tolist() == row.tolist()
        assert batch.input_ids.tolist() == np.concatenate([sequences[index] for index in row]).tolist()
        assert batch.position_ids.tolist() == np.concatenate([np.arange(size) for size in sizes]).tolist()
        assert batch.cu_seqlens.tolist() == [0, *np.cumsum(sizes)]
        assert batch.max_seqlen == max(sizes)
        assert batch.prefixes.tolist() == [-1] * len(row)


@given(st.lists(st.integers(1, 50), max_size=120), st.integers(1, 6), st.booleans())
def test_every_rank_has_the_same_number_of_bins(lengths, num_ranks, quadratic):
    passed = np.square(lengths) if quadratic else None
    packing = pack_sequences(lengths, 60)
    num_bins = -(-len(packing) // num_ranks)
    if num_bins * num_ranks > len(lengths):
        with pytest.raises(InputError, match=f"{len(packing)} bins over {num_ranks} ranks"):
            packing.balance(num_ranks, passed)
        return
    ranks = packing.balance(num_ranks, passed)
    assert [len(rank) for rank in ranks] == [num_bins] * num_ranks
    assert sorted(index for rank in ranks for index in rank.bins.values) == list(range(len(lengths)))
    costs = np.array(lengths) if passed is None else passed
    tokens, sequences = flat_tokens(lengths)
    for rank in ranks:
        assert all(0 < sum(lengths[index] for index in row) <= 60 for row in rank.bins)
        bin_costs = [costs[row].sum() for row in rank.bins]
        assert bin_costs == sorted(bin_costs, reverse=True)
        for batch in rank.collate(tokens):
            assert batch.input_ids.tolist() == np.concatenate([sequences[i] for i in batch.sequences]).tolist()


def test_ranks_cost_nearly_the_same():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.4, 0.8, 5000), 1, 2048).astype(int)
    costs = lengths + lengths**2 / 500
    ranks = pack_sequences(lengths, 2048).balance(8, costs)
    sums = [costs[rank.bins.values].sum() for rank in ranks]
    assert max(sums) / min(sums) < 1.0001


def rollout(num_sessions: int, num_profiles: int, seed: int = 0):
    """Lengths, prefixes and tokens of prompts and then of their profiles."""
    rng = np.random.default_rng(seed)
    lengths = np.concatenate([rng.integers(1, 9, num_sessions), rng.integers(0, 6, num_sessions * num_profiles)])
    prefixes = np.concatenate([np.full(num_sessions, -1), np.repeat(np.arange(num_sessions), num_profiles)])
    return lengths, prefixes, *flat_tokens(lengths)


def attention(tokens: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One head of softmax attention in float64 over embeddings of tokens and positions."""
    rng = np.random.default_rng(1)
    embedded = rng.normal(size=(2000, 8))[tokens] + rng.normal(size=(100, 8))[positions]
    query, key, value = (embedded @ rng.normal(size=(8, 8)) for _ in range(3))
    scores = np.where(mask, query @ key.T, -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights @ value / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("num_profiles", [1, 2, 5])
def test_a_shared_prefix_attends_as_a_copy_for_each_would(num_profiles):
    lengths, prefixes, tokens, sequences = rollout(12, num_profiles)
    packing = pack_sequences(lengths, 60, prefixes=prefixes)
    seen = []
    for batch in packing.collate(tokens):
        shared = attention(batch.input_ids, batch.position_ids, batch.attention_mask())
        for i, sequence in enumerate(batch.sequences):
            prefix = sequences[prefixes[sequence]] if prefixes[sequence] >= 0 else np.array([], dtype=np.int64)
            alone = np.concatenate([prefix, sequences[sequence]])
            causal = np.tri(len(alone), dtype=bool)
            expected = attention(alone, np.arange(len(alone)), causal)[len(prefix) :]
            np.testing.assert_allclose(shared[batch.cu_seqlens[i] : batch.cu_seqlens[i + 1]], expected, atol=1e-12)
            seen.append(sequence)
    assert sorted(seen) == list(range(len(lengths)))


def test_a_prefix_stands_once_before_what_continues_it():
    lengths, prefixes = [2, 3, 2, 1, 2, 1], [-1, -1, 0, 0, 1, 1]
    packing = pack_sequences(lengths, 11, prefixes=prefixes)
    assert bins_of(packing) == [[0, 2, 3, 1, 4, 5]]
    (batch,) = packing.collate(np.arange(11))
    assert batch.sequences.tolist() == [0, 2, 3, 1, 4, 5]
    assert batch.prefixes.tolist() == [-1, 0, 0, -1, 3, 3]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 2, 0, 1, 2, 3, 4, 3]
    assert batch.segment_ids.tolist() == [0, 0, 1, 1, 2, 3, 3, 3, 4, 4, 5]
    assert batch.predictors.tolist() == [-1, 0, 1, 2, 1, -1, 5, 6, 7, 8, 7]


def test_a_rollout_over_ranks_keeps_each_prompt_with_its_profiles():
    lengths, prefixes, tokens, _ = rollout(num_sessions=40, num_profiles=2)
    ranks = pack_sequences(lengths, 64, prefixes=prefixes).balance(4)
    assert len({len(rank) for rank in ranks}) == 1
    for rank in ranks:
        for batch in rank.collate(tokens):
            sessions = np.where(prefixes[batch.sequences] < 0, batch.sequences, prefixes[batch.sequences])
            assert np.unique(sessions, return_counts=True)[1].tolist() == [3] * (len(sessions) // 3)


@pytest.mark.parametrize(
    ("lengths", "capacity", "message"),
    [
        ([3, 11, 12], 10, r"lengths\[1\] is 11 tokens, more than the capacity of 10: .* nothing is cut silently"),
        ([3, -2], 10, r"lengths\[1\] is -2"),
        ([3.0], 10, r"lengths holds values of type float64: integers are needed"),
        ([[3]], 10, r"lengths has shape \(1, 1\): one flat row of integers is needed"),
        ([[3], [4, 5]], 10, r"lengths holds rows of different length: pass one flat row of integers"),
        ([3], 0, r"capacity = 0: pass a whole number from 1 to 9223372036854775807"),
        ([3], 2**63, r"capacity = 9223372036854775808: pass a whole number from 1 to 9223372036854775807"),
        (np.array([3, 2**64 - 5], np.uint64), 9, r"lengths holds 18446744073709551611 at place 1: pass integers up to"),
        ([3], 10.0, r"capacity = 10.0"),
    ],
)
def test_bad_input(lengths, capacity, message):
    with pytest.raises(InputError, match=message):
        pack_sequences(lengths, capacity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"groups": [5, 7, 7]},
            r"the 2 sequences that stay together with lengths\[1\] are 11 tokens, .* of 10: shorten",
        ),
        ({"groups": [0, 1]}, r"groups holds 2 values for 3 sequences: pass one for each"),
        ({"groups": [0.0, 1.0, 1.0]}, r"groups holds values of type float64: integers are needed"),
        ({"prefixes": [-1, 0, 1]}, r"prefixes\[2\] is 1, which continues another one itself: pass the index of an"),
        ({"prefixes": [-1, 2, -1]}, r"prefixes\[1\] is 2, which is not earlier"),
        ({"prefixes": [-1, 3, -1]}, r"prefixes\[1\] is 3, which is no sequence"),
        ({"prefixes": [-1, -1, 1]}, r"the 2 sequences that stay together with lengths\[1\] are 11 tokens"),
        ({"prefixes": [-1]}, r"prefixes holds 1 values for 3 sequences"),
        ({"groups": [0, 0, 0], "split": True}, r"groups, prefixes and split exclude each other"),
        ({"groups": [0, 0, 0], "prefixes": [-1, 0, 0]}, r"groups, prefixes and split exclude each other"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        pack_sequences([3, 5, 6], 10, **options)


@pytest.mark.parametrize(
    ("num_ranks", "costs", "message"),
    [
        (0, None, r"num_ranks = 0: pass a whole number from 1 to 9223372036854775807"),
        (2.0, None, r"num_ranks = 2.0"),
        (4, None, r"2 bins over 4 ranks are 4 bins of at least one sequence or group, and there are only 3 of these"),
        (1, [1, 2], r"costs holds 2 values for 3 sequences"),
        (1, [1, -2.5, 1], r"costs\[1\] is -2.5: a cost is finite and at least 0"),
        (1, [1, 1, float("nan")], r"costs\[2\] is NaN"),
        (1, [[1, 1, 1]], r"costs has shape \(1, 3\)"),
    ],
)
def test_bad_balance(num_ranks, costs, message):
    with pytest.raises(InputError, match=message):
        pack_sequences([3, 5, 6], 10).balance(num_ranks, costs)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (
            np.arange(13),
            r"tokens holds 13 tokens and the lengths sum to 14: pass those of all sequences, in their order",
        ),
        (np.arange(14, dtype=np.int16), r"tokens is int16 \(14,\): pass one flat array of int32 or int64"),
        (np.arange(14.0), r"tokens is float64 \(14,\)"),
        (np.arange(14)[None], r"tokens is int64 \(1, 14\)"),
        (np.arange(28)[::2], r"tokens is not contiguous .* pass np.ascontiguousarray\(tokens\)"),
        (list(range(14)), r"tokens is list"),
        (Ragged(np.array([0, 3, 9, 14]), np.arange(14)), r"tokens has 3 rows that are not as long as the lengths say"),
    ],
)
def test_bad_tokens(tokens, message):
    with pytest.raises(InputError, match=message):
        pack_sequences([3, 5, 6], 10).collate(tokens)


def test_more_tokens_than_int32_counts_in_a_bin():
    with pytest.raises(
        InputError, match=r"bin 0 holds 2147483648 tokens, and cu_seqlens are int32: pack with a capacity"
    ):
        pack_sequences([2**31], 2**31).collate(np.arange(3))
