"""MovieLens-100K from the installed package."""

import shutil
import sys
from functools import partial

import polars as pl
import pytest

from langptune_rs.config.data import DataConfig
from langptune_rs.data import prepare
from langptune_rs.data.preparing.passes import read_keys
from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.readers.reader import INTERACTION_SCHEMA, ITEM_SCHEMA, read_all
from langptune_rs.data.sources import ml_100k
from langptune_rs.data.sources.files import Files
from langptune_rs.data.sources.registry import find_source
from langptune_rs.errors import DataError

unlimited = partial(DataConfig, max_item_tokens=None, max_history_tokens=None)


@pytest.fixture
def copy(tmp_path):
    """The two files in a folder of the user's own."""
    for file in find_source("ml-100k").logs.files.values():
        shutil.copy(file, tmp_path)
    return tmp_path


def test_the_whole_set_is_read():
    logs = find_source("ml-100k").logs
    items, interactions = read_all(logs.items, ITEM_SCHEMA), read_all(logs.interactions, INTERACTION_SCHEMA)
    assert (len(items), len(interactions), interactions["user_id"].n_unique()) == (1682, 100_000, 943)
    toy_story = items.row(by_predicate=pl.col("item_id") == "1", named=True)
    assert (toy_story["title"], toy_story["categories"]) == ("Toy Story (1995)", ["Animation", "Children's", "Comedy"])
    suspects = items.row(by_predicate=pl.col("item_id") == "12", named=True)
    assert suspects["title"] == "The Usual Suspects (1995)"
    odd = items.filter(pl.col("item_id").is_in(["1412", "1373"]))
    assert odd["title"].to_list() == [
        "Good Morning (1971)",
        "Land Before Time III: The Time of the Great Giving (1995)",
    ]
    assert odd["categories"].to_list() == [[], ["Animation", "Children's"]]
    assert "recbole" not in sys.modules


@pytest.mark.parametrize(
    ("config", "sessions"),
    [
        (unlimited(), {"train": 793, "validation": 75, "test": 75}),
        (unlimited(windows="all"), {"train": 16377, "validation": 1560, "test": 1560}),
        (unlimited(split="leave-last-out"), {"train": 17611, "validation": 943, "test": 943}),
    ],
)
def test_counts(tmp_path, config, sessions):
    data = prepare("ml-100k", tmp_path / "out", config)
    assert data.info["kept"] == {"users": 943, "items": 1349, "interactions": 99_287}
    assert data.info["sessions"] == sessions
    assert len(data.catalog) == 1349


def test_the_last_session_of_a_user_is_the_newest(tmp_path):
    data = prepare("ml-100k", tmp_path / "out", unlimited(min_interactions=1))
    ratings = read_all(find_source("ml-100k").logs.interactions, INTERACTION_SCHEMA).sort("timestamp", "line")
    for i in range(0, len(data.sessions), 50):
        newest = ratings.filter(user_id=data.sessions.user_ids[i]).tail(5)["item_id"].to_list()
        items = [*data.sessions.histories[i], data.sessions.targets[i]]
        assert [data.catalog.item_ids[item] for item in items] == newest


def test_prompts_say_what_was_watched(tmp_path):
    data = prepare("ml-100k", tmp_path / "out", unlimited())
    prompt = data.prompt(data.sessions, 0)
    assert prompt.startswith(
        "The user has rated (out of 5.0) the following movies and TV shows arranged chronologically"
    )
    assert prompt.count("Title: ") == prompt.count("Review from the user: (rating: ") == 4
    assert not [text for text in data.catalog.texts if "None" in text.split() or not text.startswith("Title: ")]


def test_a_folder_of_the_user_s_own_serves_too(copy):
    assert find_source(copy) == find_source("ml-100k", Files(copy))
    assert find_source(copy).name == "ml-100k"


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("ml-100k.inter", "1\t1\tfive\t1", r"ml-100k\.inter, line 100002: rating = 'five' is no number"),
        ("ml-100k.inter", "1\t1\t6\t1", r"ml-100k\.inter, line 100002: the rating 6 is not from 0 to 5"),
        ("ml-100k.inter", "1\t1\t5\tinf", r"ml-100k\.inter, line 100002: timestamp = 'inf' is no number"),
        ("ml-100k.inter", "1\t9999\t5\t1", r"ml-100k\.inter, line 100002: the item '9999' is not in ml-100k\.item"),
        ("ml-100k.inter", "1\t1\t5\t1\t1", r"ml-100k\.inter, line 100002: 5 fields where 4 are due: '1\\t1"),
        ("ml-100k.item", "1\tToy Story\t1995\tComedy", r"ml-100k\.item, line 1684: the item_id '1' was given before"),
        ("ml-100k.item", "2000\t\t1995\tComedy", r"ml-100k\.item, line 1684: the item '2000' has an empty title"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(copy, file, line, message):
    text = (copy / file).read_text(encoding="utf-8")
    (copy / file).write_text(text.rstrip("\n") + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_keys(find_source(copy).logs, BadLines())


def test_a_missing_column_or_file_is_named(copy):
    items = copy / "ml-100k.item"
    items.write_text(items.read_text(encoding="utf-8").replace("movie_title:", "name:"), encoding="utf-8")
    with pytest.raises(DataError, match=r"ml-100k\.item lacks the column 'movie_title'\. It has item_id, name"):
        find_source(copy)
    items.unlink()
    with pytest.raises(DataError, match=r"There is no ml-100k\.item .* in"):
        find_source(copy)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(ml_100k, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip install --no-deps recbole==1\.2\.1"):
        find_source("ml-100k")
