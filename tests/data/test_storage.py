"""What is written is read back, and nothing broken is."""

import mmap
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from langptune_rs.data import load
from langptune_rs.data.store.folder import INFO, ITEMS, OWN, SESSIONS, TEMPLATE, save, template_source
from langptune_rs.data.store.mapped import ARROW
from langptune_rs.data.store.sessions import SPLITS
from langptune_rs.errors import DataError
from langptune_rs.files import file_hash

ITEM_ROWS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["A", None, "C", "D"],
        "description": ["Long", "Nameless", None, None],
        "categories": [["x", "y"], [], [], []],
        "price": ["3", None, None, None],
        "average_rating": [4.5, None, None, None],
        "text": ["Title: A\nDescription: Long", "Description: Nameless", "Title: C", "Title: D"],
        "line": ["- A: x, y", "- Nameless", "- C", "- D"],
        "num_tokens": [9, None, 3, 3],
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
        "num_tokens": [20, None, 30],
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
    assert data.catalog.texts == ITEM_ROWS["text"].to_list()
    assert data.catalog.lines == ITEM_ROWS["line"].to_list()
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


def test_the_titles_of_a_history_are_one_line_oldest_first(tmp_path):
    data = load(saved(tmp_path))
    expected = [
        "; ".join(data.catalog.titles[item] for item in history) for history in data.sessions.histories.tolist()
    ]
    assert [data.history_titles(data.sessions, i) for i in range(len(data.sessions))] == expected
    assert expected[0].endswith("; Nameless"), "an item without a title has the first words of its description"


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


def test_a_write_that_stops_in_the_middle_leaves_what_was_there(tmp_path, monkeypatch):
    saved(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("langptune_rs.data.store.folder.write_text", fails)
    with pytest.raises(DataError, match=r"cannot be written to .*No space left.* Make room"):
        saved(tmp_path, sessions=SESSION_ROWS.head(1))
    assert len(load(tmp_path).sessions) == len(SESSION_ROWS)
    assert {path.name for path in tmp_path.iterdir()} == names


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
    info.write_text(info.read_text().replace("format = 2", "format = 99"))
    with pytest.raises(DataError, match="has format 99, this version reads 2"):
        load(tmp_path)
    info.write_text("format =")
    with pytest.raises(DataError, match=r"dataset\.toml is not valid TOML"):
        load(tmp_path)


def replaced(file, table):
    """Write another table with its hash, as one would who made a data set of his own."""
    before = file_hash(file)
    table.write_parquet(file)
    info = file.with_name(INFO)
    info.write_text(info.read_text().replace(before, file_hash(file)))


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
        ({}, {"ratings": [[1], [2, 3], [4, 5]]}, r"not all lists of one length"),
        ({}, {"reviews": [["", ""], ["", ""], [""]]}, r"not all lists of one length"),
        ({}, {"reviews": [["", ""], ["", ""], None]}, r"not all lists of one length"),
        ({}, {"user_id": ["u", None, "w"]}, r"a session has no user_id"),
        ({"item_id": ["a", "b", "c", None]}, {}, r"a row has no item_id"),
        ({"text": ["a", "b", None, "d"]}, {}, r"an item has no text"),
        ({"item_id": ["a", "b", "c", "a"]}, {}, r"items\.parquet: the item_id 'a' is there twice"),
        ({}, {"split": ["train", "dev", "test"]}, r"'dev' is not a split"),
    ],
)
def test_sessions_that_cannot_be_used_are_refused(tmp_path, items, sessions, message):
    with pytest.raises(DataError, match=message):
        saved(tmp_path, changed(ITEM_ROWS, **items), changed(SESSION_ROWS, **sessions))
    assert not list(tmp_path.iterdir())
    saved(tmp_path)
    for name, values in ((ITEMS, items), (SESSIONS, sessions)):
        replaced(tmp_path / name, changed(pl.read_parquet(tmp_path / name), **values))
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    file = saved(tmp_path) / SESSIONS
    before = file_hash(file)
    file.write_bytes(b"PAR0")
    info = tmp_path / INFO
    info.write_text(info.read_text().replace(before, file_hash(file)))
    assert tomllib.loads(info.read_text())["sha256"][SESSIONS] == file_hash(file)
    with pytest.raises(DataError, match=r"sessions\.parquet cannot be read"):
        load(tmp_path)


def generated(num_items, num_sessions, text_length):
    """Items with texts of `text_length`, and sessions over them in which a third has no rating and no review."""
    rng = np.random.default_rng(3)
    names = [f"B{i:07}" for i in rng.permutation(num_items)]
    items = pl.DataFrame({"item_id": names}).with_columns(
        title="Title of " + pl.col("item_id"),
        text=("Text of " + pl.col("item_id")).str.pad_end(text_length, "é"),
        line="- " + pl.col("item_id"),
        **dict.fromkeys(("description", "price", "average_rating", "num_tokens"), pl.lit(None)),
        categories=pl.lit([], dtype=pl.List(pl.String)),
    )
    rows = (rng.integers(0, num_items - 5, (num_sessions, 1)) + np.arange(5)) % num_items
    ids = np.array(names)[rows]
    said = rng.random((num_sessions, 4)) < 2 / 3
    sessions = pl.DataFrame(
        {
            "session_id": rng.permutation(num_sessions),
            "user_id": [f"user {i // 2}" for i in range(num_sessions)],
            "history": ids[:, :4].tolist(),
            "ratings": [[float(i % 6) if ok else None for ok in row] for i, row in enumerate(said.tolist())],
            "reviews": [[f"{i} said" if ok else None for ok in row] for i, row in enumerate(said.tolist())],
            "target": ids[:, 4],
            "target_timestamp": np.arange(num_sessions, dtype=float),
            "split": rng.choice(SPLITS, num_sessions),
        }
    )
    return items, sessions.with_columns(num_tokens=None)


def test_every_row_is_that_of_the_parquet_files(tmp_path, monkeypatch):
    monkeypatch.setattr("langptune_rs.data.store.folder._ROWS_PER_GROUP", 100)
    data = load(saved(tmp_path, *generated(1000, 730, 50)))
    items, sessions = pl.read_parquet(tmp_path / ITEMS), pl.read_parquet(tmp_path / SESSIONS)
    catalog, read = data.catalog, data.sessions
    assert catalog.to_arrow().num_rows == 1000
    for i, (item_id, title, text, line) in enumerate(items.select("item_id", "title", "text", "line").iter_rows()):
        assert (catalog.item_ids[i], catalog.titles[i], catalog.texts[i], catalog.lines[i]) == (
            item_id,
            title,
            text,
            line,
        )
        assert (catalog.index_of(item_id), catalog.index_of_title(title.upper())) == (i, i)
    for i, row in enumerate(sessions.iter_rows(named=True)):
        assert (read.session_ids[i], read.user_ids[i], read.splits[i]) == (
            row["session_id"],
            row["user_id"],
            row["split"],
        )
        assert [catalog.item_ids[item] for item in (*read.histories[i], read.targets[i])] == [
            *row["history"],
            row["target"],
        ]
        assert [None if np.isnan(rating) else rating for rating in read.ratings[i]] == row["ratings"]
        assert read.reviews[i] == row["reviews"]
    assert read.user_ids.rows_of("user 7").tolist() == [14, 15]
    for split in SPLITS:
        selected = read.select(split)
        rows = sessions.filter(split=split)
        assert selected.reviews == rows["reviews"].to_list()
        assert selected.user_ids == rows["user_id"].to_list()
        assert selected.session_ids.tolist() == rows["session_id"].to_list()


def test_numbers_are_views_of_the_mapped_file_and_tensors_share_them(tmp_path):
    sessions = load(saved(tmp_path)).sessions
    tensors = sessions.to_torch()
    for name, array in sessions.to_numpy().items():
        assert not array.flags.owndata
        assert not array.flags.writeable
        assert np.shares_memory(array, tensors[name].numpy())
        np.testing.assert_array_equal(array, tensors[name].numpy(), strict=True)
    base = sessions.histories
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.arrow")}
    tensors["histories"][0, 0] = 3
    assert sessions.histories[0, 0] == 3
    assert load(tmp_path).sessions.histories[0, 0] == 0
    assert {path: path.read_bytes() for path in before} == before


def test_arrays_of_the_user_s_own_are_shared_with_tensors_where_they_can_be_written(tmp_path):
    sessions = load(saved(tmp_path)).sessions.take([2, 0])
    own = sessions.to_torch()
    assert all(np.shares_memory(array, own[name].numpy()) for name, array in sessions.to_numpy().items())
    fixed = np.frombuffer(bytes(8), dtype=np.int64)
    copied = replace(sessions.take([0]), session_ids=fixed).to_torch()["session_ids"]
    assert copied.tolist() == [0]
    assert not np.shares_memory(copied.numpy(), fixed)


@pytest.mark.parametrize("name", ["items", "sessions", "reviews"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.98])
def test_a_mapped_file_that_is_cut_off_or_missing_is_made_anew(tmp_path, name, kept):
    (file,) = saved(tmp_path).glob(f"arrow/{name}-*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    assert load(tmp_path).catalog.item_ids == ["a", "b", "c", "d"]
    assert file.read_bytes() == whole
    file.unlink()
    load(tmp_path)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("name", ["items", "sessions", "reviews"])
def test_a_mapped_file_in_which_a_bit_has_changed_is_made_anew(tmp_path, name):
    (file,) = saved(tmp_path).glob(f"arrow/{name}-*.arrow")
    whole = file.read_bytes()
    for place in range(0, len(whole), 97):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
        assert load(tmp_path).catalog.item_ids == ["a", "b", "c", "d"]
        assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('template = "movies"', "", r"has no config\.template"),
        ('template = "movies"', "template = 3", r"has no config\.template"),
        ('template = "movies"', 'template = "novies"', "has a config that no data set is made with"),
        ('template = "movies"', 'template = "movies"\nseed = "x"', "has a config that no data set is made with"),
        ('"items.parquet" = "', '"../items.parquet" = "', "has other files in sha256"),
        ("[source]", "[sources]\n[source.x]", r"has no source\.name"),
        ("[sha256]", "[leakage]\nusers = []\n[sha256]", "has a value in leakage that is no number"),
        ("format = 2", "format = 2\nfilters = 3", "has a step in filters without its counts"),
        ("format = 2", f"format = 2\nx = [0x{'f' * 5000}]", "has a whole number of more than 64 bits"),
    ],
)
def test_a_damaged_note_of_a_data_set_is_named(tmp_path, before, after, message):
    path = saved(tmp_path) / INFO
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(DataError, match=rf"dataset\.toml .*({message})"):
        load(tmp_path)


def test_mapped_files_of_other_parquet_files_are_replaced(tmp_path):
    old = set(saved(tmp_path).glob("arrow/*.arrow"))
    replaced(tmp_path / SESSIONS, pl.read_parquet(tmp_path / SESSIONS).head(2))
    assert len(load(tmp_path).sessions) == 2
    new = set(tmp_path.glob("arrow/*.arrow"))
    assert len(new) == len(old) == 3
    assert not new & old
    assert {path.name for path in tmp_path.iterdir()} <= set(OWN)


def test_a_copied_folder_is_checked_once_more(tmp_path, monkeypatch):
    saved(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    load(tmp_path / "two")
    monkeypatch.setattr("langptune_rs.data.store.folder.file_hash", lambda path: pytest.fail(f"{path} is read"))
    for name in ("one", "two"):
        assert load(tmp_path / name).catalog.item_ids == ["a", "b", "c", "d"]


def test_where_nothing_can_be_written_a_data_set_is_loaded_into_memory(tmp_path):
    shutil.rmtree(saved(tmp_path) / ARROW)
    (tmp_path / ARROW).write_text("in the way")
    data = load(tmp_path)
    assert data.catalog.texts == ITEM_ROWS["text"].to_list()
    assert data.sessions.reviews == SESSION_ROWS["reviews"].to_list()
    assert data.sessions.to_torch()["targets"].tolist() == [2, 3, 0]
    assert (tmp_path / ARROW).read_text() == "in the way"


def test_a_template_of_the_user_s_own_is_kept_and_checked(tmp_path):
    source = "{% set things = 'gardens – é' %}\n"
    save(tmp_path, ITEM_ROWS, SESSION_ROWS, FACTS | {"config": {"template": "gone.jinja"}}, template_source=source)
    data = load(tmp_path)
    assert template_source(tmp_path, data.info) == data.template.source == source
    assert "following gardens – é arranged" in data.template.instruction
    (tmp_path / TEMPLATE).write_text("{% set things = 'other' %}")
    with pytest.raises(DataError, match=r"template\.jinja has changed since"):
        load(tmp_path)
    saved(tmp_path)
    assert template_source(tmp_path, load(tmp_path).info) is None
    assert not (tmp_path / TEMPLATE).exists()


LIMITED = """
import resource, signal, sys, pathlib
sys.path.insert(0, {tests!r})
from test_storage import generated
from langptune_rs.data.store.folder import save
from langptune_rs.errors import DataError
items, sessions = generated(2000, 2000, 500)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    save(pathlib.Path({folder!r}), items, sessions, {facts!r})
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [1_000, 30_000, 80_000, 200_000, 1_000_000])
def test_a_disk_that_fills_leaves_nothing(tmp_path, limit):
    folder = tmp_path / "data"
    code = LIMITED.format(tests=str(Path(__file__).parent), limit=limit, folder=str(folder), facts=FACTS)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"cannot be written to {folder}: " in run.stdout
    assert not folder.exists()


def test_a_forked_process_loads_and_reads(tmp_path):
    data = load(saved(tmp_path, *generated(1000, 700, 50)))
    expected = (data.catalog.texts[:], data.sessions.select("train").reviews[:])
    child = os.fork()
    if not child:
        signal.alarm(60)
        same = all(
            (some.catalog.texts[:], some.sessions.select("train").reviews[:]) == expected
            for some in (data, load(tmp_path))
        )
        found = (
            data.catalog.index_of(data.catalog.item_ids[5]) == 5 and data.sessions.user_ids.rows_of("user 1").size == 2
        )
        os._exit(0 if same and found else 1)
    assert os.waitpid(child, 0)[1] == 0


READING = """
import time
from langptune_rs.data import load
load
def private():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024
before, start = private(), time.perf_counter()
data = load({folder!r})
for row in range(0, 200_000, 2_000):
    assert len(data.catalog.texts[row]) == 1000
    assert len(data.sessions.reviews[row % 5_000]) == 4
data.sessions.histories.sum()
print(private() - before, time.perf_counter() - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc to see a process's own memory")
def test_opening_a_large_data_set_and_reading_of_it_takes_neither_memory_nor_time(tmp_path):
    saved(tmp_path, *generated(200_000, 5_000, 1000))
    code = READING.format(folder=str(tmp_path))
    grown, seconds = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(grown) < 4 << 20
    assert float(seconds) < 0.3
