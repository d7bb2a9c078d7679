"""What is written is read back, and nothing broken is."""

import tomllib

import numpy as np
import polars as pl
import pytest

from langptune_rs.data import load
from langptune_rs.data.storage import INFO, ITEMS, SESSIONS, file_hash, save
from langptune_rs.errors import DataError

ITEM_ROWS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["A", None, "C", "D"],
        "description": ["Long", "Nameless", None, None],
        "categories": [["x", "y"], [], [], []],
        "price": ["3", None, None, None],
        "average_rating": [4.5, None, None, None],
    }
)
SESSION_ROWS = pl.DataFrame(
    {
        "session_id": [0, 1, 2],
        "user_id": ["u", "v", "w"],
        "history": [["a", "b"], ["c", "a"], ["b", "c"]],
        "ratings": [[4.5, None], [None, None], [1.0, 2.0]],
        "reviews": [[None, "Good."], [None, None], [None, None]],
        "target": ["c", "d", "a"],
        "target_timestamp": [1.0, 2.0, None],
        "split": ["train", "validation", "test"],
    },
    schema_overrides={"ratings": pl.List(pl.Float32), "reviews": pl.List(pl.String)},
)
FACTS = {"config": {"template": "movies"}, "source": {"name": 'quoted "\\ é \x7f\n'}}


def saved(folder, items=ITEM_ROWS, sessions=SESSION_ROWS):
    save(folder, items, sessions, FACTS)
    return folder


def test_a_data_set_is_read_as_it_was_written(tmp_path):
    data = load(saved(tmp_path))
    assert data.catalog.item_ids == ["a", "b", "c", "d"]
    assert data.catalog.titles == ["A", "Nameless", "C", "D"]
    assert data.catalog.texts[:2] == [
        "Title: A\nDescription: (average rating: 4.5) Long\nCategory: x, y\nPrice: 3",
        "Description: Nameless",
    ]
    sessions = data.sessions
    np.testing.assert_array_equal(sessions.histories, np.array([[0, 1], [2, 0], [1, 2]], dtype=np.int32), strict=True)
    np.testing.assert_array_equal(sessions.targets, np.array([2, 3, 0], dtype=np.int32), strict=True)
    np.testing.assert_array_equal(sessions.session_ids, np.array([0, 1, 2], dtype=np.int64), strict=True)
    np.testing.assert_array_equal(
        sessions.ratings, np.array([[4.5, np.nan], [np.nan] * 2, [1, 2]], dtype=np.float32), strict=True
    )
    assert sessions.reviews == [[None, "Good."], [None, None], [None, None]]
    assert data.info["source"] == FACTS["source"]


def test_popularity_counts_no_held_out_target(tmp_path):
    popularity = load(saved(tmp_path)).popularity
    np.testing.assert_array_equal(popularity, np.array([2, 2, 3, 0], dtype=np.int64), strict=True)


def test_sessions_are_selected_and_taken(tmp_path):
    sessions = load(saved(tmp_path)).sessions
    assert sessions.select("validation").user_ids == ["v"]
    taken = sessions.take([2, 0])
    assert (taken.user_ids, taken.targets.tolist(), taken.splits) == (["w", "u"], [0, 2], ["test", "train"])
    assert len(sessions.take([])) == 0
    with pytest.raises(DataError, match=r"no sessions in the split 'tset'\. .*: train, validation, test\."):
        sessions.select("tset")


def test_prompts_show_the_history_oldest_first(tmp_path):
    data = load(saved(tmp_path))
    prompt = data.prompt(data.sessions, 0)
    full_history = data.catalog.texts[0] + "\nReview from the user: (rating: 4.5)\n\n"
    full_history += "Description: Nameless\nReview from the user: Good."
    assert prompt == f"{data.template.instruction}\n\n{full_history}"
    assert "rated (out of 5.0) and reviewed following movies" in prompt
    assert data.session_text(data.sessions, 0) == full_history
    assert data.session_text(data.sessions.take([2, 0]), 1) == full_history


def test_a_prompt_may_show_each_item_in_one_line(tmp_path):
    from langptune_rs.data import PromptStyle

    data = load(saved(tmp_path))
    style = PromptStyle(instruction="Describe the user.", closing="Write:", history_text="brief")
    assert data.history_prompt([1, 3], [float("nan"), 2.5], [None, None], style) == (
        "Describe the user.\n\n- Nameless\n\n- D (rating: 2.5)\n\nWrite:"
    )


def test_items_are_found_by_id_and_by_title(tmp_path):
    catalog = load(saved(tmp_path)).catalog
    assert (catalog.index_of("c"), catalog.index_of_title("c")) == (2, 2)
    with pytest.raises(
        DataError, match=r"no item with the id 'cc' among the 4 items of the catalog\. Did you mean 'c'"
    ):
        catalog.index_of("cc")


def test_a_folder_without_its_last_file_holds_nothing(tmp_path):
    (saved(tmp_path) / INFO).unlink()
    with pytest.raises(DataError, match=r"holds no prepared data set: there is no dataset\.toml"):
        load(tmp_path)


def test_a_write_that_stops_in_the_middle_leaves_nothing_that_could_be_read(tmp_path, monkeypatch):
    saved(tmp_path)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("langptune_rs.data.storage.write_text", fails)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, sessions=SESSION_ROWS.head(1))
    with pytest.raises(DataError, match=r"holds no prepared data set"):
        load(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("name", [ITEMS, SESSIONS])
def test_a_file_that_is_missing_or_has_changed_is_named(tmp_path, name):
    file = saved(tmp_path) / name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=rf"{name} has changed since dataset\.toml was written"):
        load(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=rf"lacks {name}"):
        load(tmp_path)


def test_a_data_set_of_another_format_is_refused(tmp_path):
    info = saved(tmp_path) / INFO
    info.write_text(info.read_text().replace("format = 1", "format = 99"))
    with pytest.raises(DataError, match="has format 99, this version reads 1"):
        load(tmp_path)
    info.write_text("format =")
    with pytest.raises(DataError, match=r"dataset\.toml is not valid TOML"):
        load(tmp_path)


def changed(table, **values):
    return table.with_columns(**{name: pl.Series(column, dtype=table.schema[name]) for name, column in values.items()})


@pytest.mark.parametrize(
    ("items", "sessions", "message"),
    [
        ({}, {"target": ["c", "x", "a"]}, r"a session has the item 'x', which is not in items\.parquet"),
        ({}, {"history": [["a", "b"], ["c", "y"], ["b", "c"]]}, r"a session has the item 'y'"),
        ({}, {"history": [["a", "b"], ["c", "d"], ["b", "c"]]}, r"the session 1 holds an item twice"),
        ({}, {"history": [["a"], ["c", "a"], ["b", "c"]]}, r"not all lists of one length"),
        ({}, {"session_id": [0, 1, 1]}, r"the session_id 1 is there twice"),
        ({"item_id": ["a", "b", "c", "a"]}, {}, r"items\.parquet: the item_id 'a' is there twice"),
        ({}, {"split": ["train", "dev", "test"]}, r"'dev' is no split"),
    ],
)
def test_sessions_that_cannot_be_used_are_refused(tmp_path, items, sessions, message):
    folder = saved(tmp_path, changed(ITEM_ROWS, **items), changed(SESSION_ROWS, **sessions))
    with pytest.raises(DataError, match=message):
        load(folder)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    file = saved(tmp_path) / SESSIONS
    before = file_hash(file)
    file.write_bytes(b"PAR0")
    info = tmp_path / INFO
    info.write_text(info.read_text().replace(before, file_hash(file)))
    assert tomllib.loads(info.read_text())["sha256"][SESSIONS] == file_hash(file)
    with pytest.raises(DataError, match=r"sessions\.parquet cannot be read"):
        load(tmp_path)
