"""Whatever is passed gives a right answer or an InputError: never another exception, never the end of the process."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langptune_rs import ItemIndex, Ragged, evaluate, pack_sequences
from langptune_rs.errors import InputError

ITEMS = np.array([[1, 0, 2], [0, 1, 1], [1, 1, 1], [-1, 2, 0], [0, 1, 1]], dtype=np.float32)
DTYPES = ["?", "i1", "u1", "i4", "i8", ">i8", "u8", "f2", "f4", ">f4", "f8", "c8", "U2", "M8[s]"]
LAYOUTS = [
    lambda array: array,
    lambda array: array.T,
    lambda array: array[..., ::2] if array.ndim else array,
    lambda array: np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype) if array.size else array,
]


@st.composite
def arrays(draw):
    """Of any dtype, shape and layout."""
    array = draw(hnp.arrays(draw(st.sampled_from(DTYPES)), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
    return draw(st.sampled_from(LAYOUTS))(array)


numbers = st.integers(-2, 6) | st.integers() | st.floats(width=32) | st.booleans()
scalars = numbers | st.none() | st.text(max_size=2) | st.complex_numbers()
flat = st.lists(scalars, max_size=4) | st.lists(numbers, max_size=4)
lists = flat | st.lists(st.lists(numbers, max_size=3), max_size=4)
anything = arrays() | lists | scalars | st.tuples(lists, lists) | st.builds(Ragged, arrays(), arrays())


@st.composite
def rows(draw, num_rows):
    """Rows of item indexes, most of them right, in any form."""
    indexes = st.lists(st.integers(0, len(ITEMS) - 1) | st.integers(-1, len(ITEMS)), max_size=3)
    made = draw(st.lists(indexes, min_size=num_rows, max_size=num_rows))
    offsets = np.cumsum([0, *map(len, made)])
    values = np.array([index for row in made for index in row], dtype=np.int64)
    values = values.astype(draw(st.sampled_from(["i8", "i4", ">i8", "u8"])))
    return draw(
        st.sampled_from([made, (offsets, values)])
        | st.lists(st.integers(0, len(ITEMS) - 1), min_size=num_rows, max_size=num_rows)
        | anything
    )


@st.composite
def problems(draw):
    """Users, targets and exclusions."""
    shape = (draw(st.integers(0, 3)), ITEMS.shape[1])
    values = st.integers(-2, 2) | st.sampled_from([np.nan, np.inf, 3e38])
    users = draw(hnp.arrays(np.float32, shape, elements=st.integers(-2, 2)) | hnp.arrays("f4", shape, elements=values))
    users = draw(st.just(users) | anything)
    return users, draw(rows(shape[0])), draw(st.none() | rows(shape[0]))


def unless_refused(work, *arguments, **options):
    """What `work` returns; None where it raises InputError."""
    try:
        return work(*arguments, **options)
    except InputError:
        return None


def as_lists(rows):
    rows = Ragged(*map(np.asarray, rows)) if isinstance(rows, tuple) else rows
    return [np.ravel(row).tolist() for row in rows]


def ranking(user, excluded):
    """All items that are left, the best first; the scores of whole numbers are exact."""
    scores = ITEMS @ user
    return sorted(set(range(len(ITEMS))) - set(excluded), key=lambda item: (-scores[item], item))


def is_whole(users):
    return np.all((users == np.rint(users)) & (np.abs(users) < 1e6))


@settings(max_examples=300)
@given(problems(), st.sampled_from(["index", "min", "max", "mean"]) | scalars)
def test_rank(problem, ties):
    users, targets, exclude = problem
    ranks = unless_refused(ItemIndex(ITEMS).rank, users, targets, exclude=exclude, ties=ties)
    if ranks is not None and ties == "index" and is_whole(users):
        excluded = [[]] * len(users) if exclude is None else as_lists(exclude)
        expected = [
            [1 + ranking(user, out).index(target) for target in row]
            for user, row, out in zip(users, as_lists(targets), excluded, strict=True)
        ]
        assert as_lists(ranks) == expected


@settings(max_examples=300)
@given(problems(), st.integers(1, 5) | scalars)
def test_search(problem, k):
    users, _, exclude = problem
    found = unless_refused(ItemIndex(ITEMS).search, users, k, exclude=exclude)
    if found is not None and is_whole(users):
        excluded = [[]] * len(users) if exclude is None else as_lists(exclude)
        heads = [ranking(user, out)[:k] for user, out in zip(users, excluded, strict=True)]
        assert found[1].tolist() == heads
        assert found[0].tolist() == [(ITEMS[head] @ user).tolist() for user, head in zip(users, heads, strict=True)]


@settings(max_examples=300)
@given(anything)
def test_an_index(items):
    index = unless_refused(ItemIndex, items)
    if index is not None:
        assert index.item_embeddings is items
        assert np.all(np.isfinite(items))


@settings(max_examples=300)
@given(
    st.lists(st.integers(1, 30), min_size=1) | st.lists(st.lists(st.integers(1, 9), min_size=1), min_size=1) | anything,
    st.just(["mrr", "ndcg@5", "precision@3"])
    | st.lists(st.sampled_from(["recall@2", "mrr", "map@0", "ndcg@x", "precision", "hit_rate@9999999999999999999"]))
    | st.lists(scalars)
    | anything,
)
def test_evaluate(ranks, metrics):
    result = unless_refused(evaluate, ranks, metrics)
    if result is not None:
        assert list(result.mean) == list(dict.fromkeys(metrics))
        assert all(np.all((scores >= 0) & np.isfinite(scores)) for scores in result.per_user.values())
        if "mrr" in metrics:
            assert result.per_user["mrr"].tolist() == [1 / min(row) for row in as_lists(ranks)]


lengths = st.lists(st.integers(0, 9), max_size=9) | st.lists(st.integers(0, 2**64), max_size=4) | anything


@settings(max_examples=300)
@given(lengths, st.integers(9, 40) | st.integers(2**40, 2**64) | scalars, st.data())
def test_pack_sequences(lengths, capacity, data):
    num_sequences = len(lengths) if isinstance(lengths, list) else 0
    labels = st.none() | st.lists(st.integers(-1, 3), min_size=num_sequences, max_size=num_sequences) | anything
    groups, prefixes = data.draw(st.tuples(labels, st.none()) | st.tuples(st.none(), labels))
    packing = unless_refused(pack_sequences, lengths, capacity, groups=groups, prefixes=prefixes)
    if packing is not None:
        assert sorted(packing.bins.values.tolist()) == list(range(len(lengths)))
        assert all(sum(packing.lengths[row].tolist()) <= capacity for row in packing.bins)
        assert 0 <= packing.fill <= 1
        if groups is not None:
            bin_of = {index: bin for bin, row in enumerate(packing.bins) for index in row}
            assert len({(bin_of[index], group) for index, group in enumerate(groups)}) == len(set(groups))
        tokens = data.draw(hnp.arrays("i8", min(sum(packing.lengths.tolist()), 100)) | anything)
        batches = unless_refused(packing.collate, tokens)
        if batches is not None:
            flat = tokens.values if isinstance(tokens, Ragged) else tokens
            assert np.array_equal(np.sort(batches.input_ids.values), np.sort(flat))


@settings(max_examples=100)
@given(st.lists(st.integers(0, 50), max_size=9) | st.lists(st.integers(2**50, 2**64), max_size=3), st.integers(1, 20))
def test_split(lengths, capacity):
    packing = unless_refused(pack_sequences, lengths, capacity, split=True)
    if packing is not None:
        assert np.all(packing.lengths <= capacity)
        assert np.bincount(packing.sources, packing.lengths, len(lengths)).tolist() == lengths
