"""A history from a file of the user's own."""

import math

import pytest

from langptune_rs.data import Catalog, read_history
from langptune_rs.errors import DataError

CATALOG = Catalog(
    item_ids=["1", "2", "3"], titles=["Toy Story (1995)", "Heat", "Heat"], texts=["", "", ""], lines=[""] * 3
)


def test_items_are_found_by_id_or_title(tmp_path):
    file = tmp_path / "history.jsonl"
    file.write_text(
        '{"item_id": 3, "rating": 4.5}\n\n{"title": "toy story (1995)", "review_text": "Fun."}\n{"title": "Heat"}'
    )
    items, ratings, reviews = read_history(file, CATALOG)
    assert items == [2, 0, 1]
    assert ratings[0] == 4.5
    assert all(math.isnan(rating) for rating in ratings[1:])
    assert reviews == [None, "Fun.", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"history\.jsonl is empty"),
        ('{"item_id": "12"}', r"line 1: There is no item with the id '12' among the 3 items"),
        (
            '{"title": "Heat"}\n{"title": "Toy Story"}',
            r"line 2: No item .* 'Toy Story'\. Did you mean 'Toy Story \(1995\)'\?",
        ),
        ("{}", r"line 1: item_id = null identifies nothing"),
        ('{"item_id": "1", "rating": 9}', r"line 1: the rating 9 is not from 0 to 5"),
        ('{"item_id": "1", "rating": "9"}', r"line 1: rating = \"9\" is no number"),
        ("{", r"line 1: broken JSON"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, text, message):
    file = tmp_path / "history.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_history(file, CATALOG)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no history file .*none\.jsonl"):
        read_history(tmp_path / "none.jsonl", CATALOG)
