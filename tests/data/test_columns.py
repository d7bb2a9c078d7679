"""Columns over Arrow arrays do what lists do."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.store.columns import Labels, TextColumn, TextLists, folded_order

TEXTS = st.lists(st.text("aAbBßé😀 ", max_size=3), max_size=12)


def rows_among(values):
    """Rows of a list, from either end."""
    return st.lists(st.integers(-len(values), len(values) - 1), max_size=8) if values else st.just([])


@st.composite
def columns(draw):
    """A list of texts, and a column of them whose arrays are cut somewhere, with or without their known order."""
    texts = draw(TEXTS)
    cuts = sorted({0, len(texts), *draw(st.lists(st.integers(0, len(texts)), max_size=3))})
    chunks = [pa.array(texts[a:b], pa.large_string()) for a, b in pairwise(cuts)]
    order = pa.chunked_array([pa.array(folded_order(texts))]) if texts and draw(st.booleans()) else None
    return texts, TextColumn(pa.chunked_array(chunks, type=pa.large_string()), order=order)


@st.composite
def with_rows(draw):
    """As `columns`, also of some of the rows, and rows of that to take."""
    texts, column = draw(columns())
    if draw(st.booleans()):
        taken = draw(rows_among(texts))
        texts, column = [texts[i] for i in taken], column.take(taken)
    rows = draw(rows_among(texts))
    return texts, column, rows


@given(with_rows(), st.slices(12), st.text("aAbBßé ", max_size=2))
def test_a_column_is_read_like_a_list(case, part, wanted):
    texts, column, rows = case
    assert len(column) == len(texts)
    assert list(column) == column.to_list() == column.to_arrow().to_pylist() == texts
    assert column == texts
    assert column != [*texts, "more"]
    assert column[part] == texts[part]
    assert [column[i] for i in range(-len(texts), len(texts))] == texts * 2
    assert column[rows] == column[np.array(rows, dtype=np.int32)] == list(column.take(rows)) == [texts[i] for i in rows]
    assert column.take(rows).take(range(len(rows))) == column[rows]
    assert column.find(wanted) == next((i for i, text in enumerate(texts) if text == wanted), None)
    alike = [i for i, text in enumerate(texts) if text.casefold() == wanted.casefold()]
    assert column.find(wanted, any_case=True) == next(iter(alike), None)
    assert column.rows_of(wanted).tolist() == [i for i, text in enumerate(texts) if text == wanted]
    assert [code == column.codes()[0] for code in column.codes()] == [text == texts[0] for text in texts]
    assert sorted(column.near(wanted)) == sorted(texts)
    assert (wanted in column) == (wanted in texts)


def test_texts_near_another_are_its_neighbours_in_the_alphabet():
    column = TextColumn([f"{i:03}" for i in range(500)][::-1])
    assert column.near("250x", 4) == ["249", "250", "251", "252"]
    assert column.near("000", 4) == ["000", "001"]


def test_a_search_for_what_no_column_can_hold_finds_nothing():
    column = TextColumn(["a", "b"])
    assert column.find("\ud800") is None
    assert column.rows_of("\ud800").tolist() == []


@pytest.mark.parametrize("row", [3, -4, [0, 3], np.array([-4])])
def test_a_row_out_of_range_is_refused(row):
    for column in (TextColumn(["a", "b", "c"]), Labels.of("abc", "abc")):
        with pytest.raises(IndexError, match="of a column of 3"):
            column[row]


@pytest.mark.parametrize("row", [1.0, "a", [0.5], [True, False, True], np.zeros((1, 1), dtype=int)])
def test_a_row_that_is_no_integer_is_refused(row):
    with pytest.raises(TypeError):
        TextColumn(["a", "b", "c"])[row]


@given(st.lists(st.lists(st.none() | st.text("ab", max_size=2), min_size=2, max_size=2), max_size=6), st.data())
def test_lists_of_texts_are_read_like_lists(lists, data):
    column = TextLists(lists)
    assert column == lists
    assert column.has_any == any(text is not None for texts in lists for text in texts)
    rows = data.draw(rows_among(lists))
    taken = column.take(rows)
    assert taken == column[rows] == [lists[i] for i in rows]
    assert taken.has_any == any(lists[i][j] is not None for i in rows for j in (0, 1))


@given(st.lists(st.sampled_from("abc"), max_size=9), st.slices(9))
def test_labels_are_read_like_a_list(values, part):
    labels = Labels.of("abcd", values)
    assert labels == values
    assert labels[part] == values[part]
    for name in "abcde":
        assert labels.count(name) == values.count(name)
        assert labels.mask(name).tolist() == [value == name for value in values]
    assert labels.take(range(len(values))[::-1]) == values[::-1]


def test_a_column_shows_its_first_values():
    assert repr(TextColumn("abcd")) == "TextColumn(4 rows: 'a', 'b', 'c', …)"
