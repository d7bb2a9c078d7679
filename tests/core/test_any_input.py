"""Whatever is passed gives a right answer or an InputError: never another exception, never the end of the process."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langptune_rs import ItemIndex, Ragged, ShardedIndex, compare, evaluate, pack_sequences
from langptune_rs.errors import InputError
from langptune_rs.evaluation import (
    bootstrap_interval,
    bootstrap_intervals,
    coverage,
    gini,
    holm,
    merge_candidates,
    novelty,
    paired_permutation_test,
    paired_t_test,
)

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
    """Arrays of any dtype, shape and layout."""
    array = draw(hnp.arrays(draw(st.sampled_from(DTYPES)), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
    return draw(st.sampled_from(LAYOUTS))(array)


numbers = st.integers(-2, 6) | st.integers() | st.floats(width=32) | st.booleans()
scalars = numbers | st.none() | st.text(max_size=2) | st.complex_numbers()
flat = st.lists(scalars, max_size=4) | st.lists(numbers, max_size=4)
lists = flat | st.lists(st.lists(numbers, max_size=3), max_size=4)
anything = arrays() | lists | scalars | st.tuples(lists, lists) | st.builds(Ragged, arrays(), arrays())


def in_any_form(made):
    """Rows as a list, flat with their offsets, or Ragged; of any integers."""
    offsets = np.cumsum([0, *map(len, made)])
    values = np.array([value for row in made for value in row], dtype=np.int64)
    typed = st.sampled_from(["i8", "i4", ">i8", "u8"]).map(values.astype)
    return st.just(made) | st.tuples(st.just(offsets), typed) | st.builds(Ragged, st.just(offsets), typed)


@st.composite
def good_problems(draw):
    """Users, targets and exclusions that can be ranked, and k that can be searched."""
    num_users = draw(st.integers(0, 3))
    users = draw(hnp.arrays(np.float32, (num_users, ITEMS.shape[1]), elements=st.integers(-2, 2)))
    orders = draw(st.lists(st.permutations(range(len(ITEMS))), min_size=num_users, max_size=num_users))
    if draw(st.booleans()):
        num_targets = [1] * num_users
        targets = draw(st.just([order[0] for order in orders]).map(draw(st.sampled_from([list, np.array]))))
        targets = np.empty(0, dtype=np.int32) if num_users == 0 else targets
    else:
        num_targets = draw(st.lists(st.integers(0, 3), min_size=num_users, max_size=num_users))
        targets = draw(in_any_form([order[:t] for order, t in zip(orders, num_targets, strict=True)]))
    num_left = draw(st.lists(st.integers(3, len(ITEMS)), min_size=num_users, max_size=num_users))
    out = [order[max(t, left) :] for order, t, left in zip(orders, num_targets, num_left, strict=True)]
    exclude = draw(st.none() | in_any_form(out))
    return users, targets, exclude, draw(st.integers(1, min([3, *num_left])))


@st.composite
def rows(draw, num_rows):
    """Rows of item indexes, most of them right, in any form."""
    indexes = st.lists(st.integers(0, len(ITEMS) - 1) | st.integers(-1, len(ITEMS)), max_size=3)
    made = draw(st.lists(indexes, min_size=num_rows, max_size=num_rows))
    flat = st.lists(st.integers(0, len(ITEMS) - 1), min_size=num_rows, max_size=num_rows)
    return draw(in_any_form(made) | flat | anything)


@st.composite
def problems(draw):
    """(whether it must be answered, users, targets, exclusions, k)."""
    if draw(st.booleans()):
        return True, *draw(good_problems())
    shape = (draw(st.integers(0, 3)), ITEMS.shape[1])
    values = st.integers(-2, 2) | st.sampled_from([np.nan, np.inf, 3e38])
    users = draw(hnp.arrays(np.float32, shape, elements=st.integers(-2, 2)) | hnp.arrays("f4", shape, elements=values))
    users = draw(st.just(users) | anything)
    k = draw(st.integers(1, 5) | st.integers(2**62, 2**70) | scalars)
    return False, users, draw(rows(shape[0])), draw(st.none() | rows(shape[0])), k


def unless_refused(valid, work, *arguments, **options):
    """What `work` returns; None where it raises InputError, which it may not for what is valid."""
    try:
        return work(*arguments, **options)
    except InputError:
        if valid:
            raise
        return None


def as_lists(rows):
    rows = Ragged(*map(np.asarray, rows)) if isinstance(rows, tuple) else rows
    return [np.ravel(row).tolist() for row in rows]


def excluded_of(users, exclude):
    return [[]] * len(users) if exclude is None else as_lists(exclude)


def ranking(user, excluded):
    """All items that are left, the best first; the scores of whole numbers are exact."""
    scores = ITEMS @ user
    return sorted(set(range(len(ITEMS))) - set(excluded), key=lambda item: (-scores[item], item))


def is_whole(users):
    return np.all((users == np.rint(users)) & (np.abs(users) < 1e6))


def ranks_of(users, targets, exclude):
    return [
        [1 + ranking(user, out).index(target) for target in row]
        for user, row, out in zip(users, as_lists(targets), excluded_of(users, exclude), strict=True)
    ]


INDEXES = [ItemIndex(ITEMS), ShardedIndex([ItemIndex(ITEMS[2:], first_item=2), ItemIndex(ITEMS[:2])])]
indexes = st.sampled_from(INDEXES)


@settings(max_examples=300)
@given(indexes, problems(), st.sampled_from(["index", "min", "max", "mean"]))
def test_rank(index, problem, ties):
    valid, users, targets, exclude, _ = problem
    ranks = unless_refused(valid, index.rank, users, targets, exclude=exclude, ties=ties)
    if ranks is not None and ties == "index" and is_whole(users):
        assert as_lists(ranks) == ranks_of(users, targets, exclude)


@given(indexes, good_problems(), scalars | st.just("max"))
def test_tie_rules(index, problem, ties):
    users, targets, exclude, _ = problem
    assert (
        unless_refused(ties == "max", index.rank, users, targets, exclude=exclude, ties=ties) is None or ties == "max"
    )


@settings(max_examples=300)
@given(indexes, problems())
def test_search(index, problem):
    valid, users, _, exclude, k = problem
    found = unless_refused(valid, index.search, users, k, exclude=exclude)
    if found is not None and is_whole(users):
        heads = [ranking(user, out)[:k] for user, out in zip(users, excluded_of(users, exclude), strict=True)]
        assert found[1].tolist() == heads
        assert found[0].tolist() == [(ITEMS[head] @ user).tolist() for user, head in zip(users, heads, strict=True)]


@settings(max_examples=300)
@given(problems(), st.integers(0, 9) | st.integers(2**62, 2**63 - 1))
def test_candidates(problem, more):
    valid, users, _, exclude, k = problem
    k = k + more if valid and k + more < 2**63 else k
    found = unless_refused(valid, ItemIndex(ITEMS).candidates, users, k, exclude=exclude)
    if found is not None and is_whole(users):
        inside = [[item for item in row if 0 <= item < len(ITEMS)] for row in excluded_of(users, exclude)]
        assert as_lists(found[1]) == [ranking(user, out)[:k] for user, out in zip(users, inside, strict=True)]


@settings(max_examples=300)
@given(problems())
def test_score(problem):
    valid, users, targets, _, _ = problem
    scores = unless_refused(valid, ItemIndex(ITEMS[:3]).score, users, targets)
    if scores is not None and is_whole(users):
        assert all(
            np.array_equal(row, [(ITEMS[item] @ user if item < 3 else np.nan) for item in items], equal_nan=True)
            for row, user, items in zip(as_lists(scores), users, as_lists(targets), strict=True)
        )


@settings(max_examples=300)
@given(problems(), st.floats(1e-200, 1e200) | anything)
def test_score_targets(problem, temperature):
    valid, users, targets, exclude, _ = problem
    is_number = isinstance(temperature, (int, float, np.integer, np.floating)) and not isinstance(temperature, bool)
    valid = valid and is_number and 1e-200 <= temperature < np.inf
    found = unless_refused(valid, ItemIndex(ITEMS).score_targets, users, targets, exclude, temperature=temperature)
    if found is not None and is_whole(users):
        assert as_lists(found.ranks) == ranks_of(users, targets, exclude)


@settings(max_examples=300)
@given(problems(), st.data())
def test_count_above(problem, data):
    valid, users, targets, exclude, _ = problem
    index = ItemIndex(ITEMS)
    scores = unless_refused(valid, index.score, users, targets)
    if scores is None or not data.draw(st.booleans()):
        valid, scores = False, data.draw(st.lists(st.floats(width=32), max_size=4) | anything)
    counts = unless_refused(valid, index.count_above, users, targets, scores, exclude=exclude)
    if valid:
        assert [[count + 1 for count in row] for row in as_lists(counts)] == ranks_of(users, targets, exclude)


@st.composite
def found_by_shards(draw):
    """(whether it must be merged, what shards found, k): whole scores of items that are all different in a row."""
    if draw(st.booleans()):
        wrong = st.tuples(lists, lists) | st.tuples(arrays(), arrays()) | anything
        return False, draw(st.lists(wrong, max_size=3) | anything), draw(st.integers(1, 3) | scalars)
    num_users, num_shards = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    found, fewest = [([], []) for _ in range(num_shards)], 9
    for _ in range(num_users):
        order = draw(st.permutations(range(9)))
        cuts = sorted(draw(st.lists(st.integers(0, 9), min_size=num_shards, max_size=num_shards)))
        fewest = min(fewest, cuts[-1])
        for (scores, ids), start, end in zip(found, [0, *cuts], cuts, strict=False):
            ids.append(order[start:end])
            scores.append(np.array([item % 4 for item in ids[-1]], dtype=np.float32))
    assume(fewest > 0)
    return True, found, draw(st.integers(1, fewest))


@settings(max_examples=300)
@given(found_by_shards())
def test_merge_candidates(problem):
    valid, found, k = problem
    merged = unless_refused(valid, merge_candidates, found, k)
    if valid:
        items = [[item for _, ids in found for item in ids[user]] for user in range(len(found[0][1]))]
        assert merged[1].tolist() == [sorted(row, key=lambda item: (-(item % 4), item))[:k] for row in items]
        assert np.array_equal(merged[0], merged[1] % 4)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4) | anything, st.permutations(range(4)))
def test_shards(sizes, order):
    valid = isinstance(sizes, list) and bool(sizes) and all(type(size) is int and 1 <= size <= 3 for size in sizes)
    shards = sizes
    if valid:
        shards = [ItemIndex(np.ones((n, 1), "f4"), first_item=sum(sizes[:i])) for i, n in enumerate(sizes)]
        shards = [shards[place] for place in order if place < len(shards)]
    sharded = unless_refused(valid, ShardedIndex, shards)
    assert valid == (sharded is not None)
    assert not valid or len(sharded) == sum(sizes)


@settings(max_examples=300)
@given(anything)
def test_an_index(items):
    index = unless_refused(False, ItemIndex, items)
    if index is not None:
        assert index.item_embeddings is items
        assert np.all(np.isfinite(items))


@given(hnp.arrays("f4", st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-9, 9, width=32)))
def test_an_index_of_finite_numbers(items):
    index = ItemIndex(items)
    assert (len(index), index.dim) == items.shape
    assert index.rank(items[:1], [0], exclude=[range(1, len(items))]).tolist() == [1]


good_ranks = st.lists(st.integers(1, 30), min_size=1) | st.lists(st.lists(st.integers(1, 9), min_size=1), min_size=1)
good_metrics = st.lists(
    st.sampled_from(["mrr", "ndcg@5", "precision@3", "recall@2", "map", "hit_rate@999999999999999999"]), min_size=1
)
bad_metrics = (
    st.lists(st.sampled_from(["recall@2", "mrr", "map@0", "ndcg@x", "precision", "hit_rate@9999999999999999999"]))
    | st.lists(scalars)
    | anything
)


@settings(max_examples=300)
@given(
    st.tuples(st.just(True), good_ranks, good_metrics) | st.tuples(st.just(False), good_ranks | anything, bad_metrics)
)
def test_evaluate(problem):
    valid, ranks, metrics = problem
    result = unless_refused(valid, evaluate, ranks, metrics)
    if result is not None:
        assert list(result.mean) == list(dict.fromkeys(metrics))
        assert all(np.all((scores >= 0) & np.isfinite(scores)) for scores in result.per_user.values())
        if "mrr" in metrics:
            assert result.per_user["mrr"].tolist() == [1 / min(row) for row in as_lists(ranks)]


samples = st.lists(st.floats(-9, 9), min_size=1, max_size=9)
counts = st.integers(-1, 30) | st.floats() | st.text(max_size=1) | st.none()
seeds = st.integers(-1, 2**65) | scalars


@settings(max_examples=300)
@given(
    samples | anything, st.floats(0.01, 0.99) | scalars, seeds, counts, st.sampled_from(["percentile", "bca"]) | scalars
)
def test_an_interval(scores, level, seed, num_resamples, method):
    options = {"level": level, "seed": seed, "num_resamples": num_resamples, "method": method}
    interval = unless_refused(False, bootstrap_interval, scores, **options)
    if interval is not None:
        assert np.min(scores) - 1e-9 <= interval[0] <= interval[1] <= np.max(scores) + 1e-9


@given(st.lists(samples, min_size=1, max_size=3), st.floats(0.01, 0.99), st.integers(0, 2**64 - 1), st.integers(1, 30))
def test_intervals(of_metrics, level, seed, num_resamples):
    num_users = min(map(len, of_metrics))
    cut = {str(number): scores[:num_users] for number, scores in enumerate(of_metrics)}
    options = {"level": level, "seed": seed, "num_resamples": num_resamples}
    assert bootstrap_intervals(cut, **options) == {
        name: bootstrap_interval(scores, **options) for name, scores in cut.items()
    }
    if len({len(scores) for scores in of_metrics}) > 1:
        with pytest.raises(InputError, match="pass those of the same users"):
            bootstrap_intervals(dict(enumerate(of_metrics)), **options)


@given(anything)
def test_intervals_of_anything(scores):
    unless_refused(False, bootstrap_intervals, scores, num_resamples=5)
    unless_refused(False, bootstrap_intervals, {"a": scores, 2: scores}, num_resamples=5)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=9) | st.tuples(anything, anything),
    counts,
    seeds,
)
def test_paired_tests(pairs, num_permutations, seed):
    valid = isinstance(pairs, list)
    a, b = zip(*pairs, strict=True) if valid else pairs
    p_values = [
        unless_refused(valid, paired_permutation_test, a, b),
        unless_refused(False, paired_permutation_test, a, b, num_permutations=num_permutations, seed=seed),
        unless_refused(False, paired_t_test, a, b),
    ]
    assert all(p_value is None or 0 <= p_value <= 1 for p_value in p_values)


@given(st.lists(st.floats(0, 1)) | st.lists(scalars) | anything)
def test_holm(p_values):
    valid = isinstance(p_values, list) and all(type(p) is float and 0 <= p <= 1 for p in p_values)
    corrected = unless_refused(valid, holm, p_values)
    if corrected is not None:
        assert len(corrected) == len(p_values)
        assert all(p <= held <= 1 for p, held in zip(p_values, corrected, strict=True))


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=2, max_size=3) | anything, scalars | anything
)
def test_compare(methods, wrong):
    valid = isinstance(methods, list) and len(methods) > 1 and all(isinstance(m, list) and len(m) == 3 for m in methods)
    valid = valid and all(type(rank) is int and rank >= 1 for ranks in methods for rank in ranks)
    results = {str(number): evaluate(ranks, ["mrr"]) for number, ranks in enumerate(methods)} if valid else methods
    comparison = unless_refused(valid, compare, results, metric="mrr", num_permutations=20)
    if valid:
        assert [comparison.pair(a, b).p_value for a, b in combinations(results, 2)] == [
            paired_permutation_test(results[a].per_user["mrr"], results[b].per_user["mrr"], num_permutations=20)
            for a, b in combinations(results, 2)
        ]
        assert unless_refused(False, compare, results, metric=wrong) is None
        assert unless_refused(False, compare, results, metric="mrr", test=wrong) is None
        assert unless_refused(False, compare, {**results, "more": wrong}, metric="mrr") is None


shown = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4, unique=True), min_size=1, max_size=4)
problems_of_lists = st.tuples(st.just(True), shown.flatmap(in_any_form), st.integers(7, 2**63 - 1)) | st.tuples(
    st.just(False), shown | anything, st.integers(-1, 2**70) | scalars
)


@settings(max_examples=300)
@given(problems_of_lists)
def test_coverage_and_gini(problem):
    valid, ids, num_items = problem
    share, inequality = (unless_refused(valid, measure, ids, num_items) for measure in (coverage, gini))
    assert (share is None) == (inequality is None)
    if share is not None:
        assert share == len({item for row in as_lists(ids) for item in row}) / num_items
        assert 0 <= inequality <= 1


@settings(max_examples=300)
@given(problems_of_lists, st.lists(st.integers(1, 2**63 - 1), min_size=7, max_size=7), anything)
def test_novelty(problem, popularity, wrong):
    valid, ids, _ = problem
    bits = unless_refused(valid, novelty, ids, popularity)
    if valid:
        of_items = np.log2(float(sum(popularity))) - np.log2(np.array(popularity, dtype=float))
        assert bits == pytest.approx(np.mean([of_items[row].mean() for row in as_lists(ids)]), abs=1e-9)
    unless_refused(False, novelty, ids, wrong)


lengths = st.lists(st.integers(0, 9), max_size=9) | st.lists(st.integers(0, 2**64), max_size=4) | anything


@settings(max_examples=300)
@given(lengths, st.integers(9, 40) | st.integers(2**40, 2**64) | scalars, st.data())
def test_pack_sequences(lengths, capacity, data):
    num_sequences = len(lengths) if isinstance(lengths, list) else 0
    labels = st.none() | st.lists(st.integers(-1, 3), min_size=num_sequences, max_size=num_sequences) | anything
    groups, prefixes = data.draw(st.tuples(labels, st.none()) | st.tuples(st.none(), labels))
    whole = isinstance(lengths, list) and all(type(length) is int and 0 <= length <= 9 for length in lengths)
    valid = whole and type(capacity) is int and 9 <= capacity < 2**63 and groups is None and prefixes is None
    packing = unless_refused(valid, pack_sequences, lengths, capacity, groups=groups, prefixes=prefixes)
    if packing is not None:
        assert sorted(packing.bins.values.tolist()) == list(range(len(lengths)))
        assert all(sum(packing.lengths[row].tolist()) <= capacity for row in packing.bins)
        assert 0 <= packing.fill <= 1
        if groups is not None:
            bin_of = {index: bin for bin, row in enumerate(packing.bins) for index in row}
            assert len({(bin_of[index], group) for index, group in enumerate(groups)}) == len(set(groups))
        total = sum(packing.lengths.tolist())
        right = total <= 100 and data.draw(st.booleans())
        tokens = data.draw(hnp.arrays("i8", total) if right else hnp.arrays("i8", min(total, 99)) | anything)
        batches = unless_refused(right, packing.collate, tokens)
        if batches is not None:
            flat = tokens.values if isinstance(tokens, Ragged) else tokens
            assert np.array_equal(np.sort(batches.input_ids.values), np.sort(flat))


@settings(max_examples=100)
@given(
    st.tuples(st.just(True), st.lists(st.integers(0, 50), max_size=9))
    | st.tuples(st.just(False), st.lists(st.integers(2**50, 2**64), max_size=3)),
    st.integers(1, 20),
)
def test_split(lengths, capacity):
    valid, lengths = lengths
    packing = unless_refused(valid, pack_sequences, lengths, capacity, split=True)
    if packing is not None:
        assert np.all(packing.lengths <= capacity)
        assert np.bincount(packing.sources, packing.lengths, len(lengths)).tolist() == lengths
