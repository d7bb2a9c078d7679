"""The user's own tables by a column map, RecBole's atomic files, and which source a folder is."""

import json

import polars as pl
import pytest

from langptune_rs.config.data import DataConfig
from langptune_rs.data import prepare
from langptune_rs.data.preparing.passes import read_keys
from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.readers.reader import INTERACTION_SCHEMA, ITEM_SCHEMA, read_all
from langptune_rs.data.sources.files import Files, column_map
from langptune_rs.data.sources.registry import SOURCES, find_source
from langptune_rs.errors import DataError


@pytest.fixture
def write(tmp_path):
    """`write({name: text})` makes a folder of files."""

    def write(files):
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return write


def read(source, files=Files(), bad=None):  # noqa: B008
    logs = find_source(source, files).logs
    return read_all(logs.items, ITEM_SCHEMA, bad).rows(), read_all(logs.interactions, INTERACTION_SCHEMA, bad).rows()


def test_columns_are_mapped_and_others_have_their_own_names(write):
    folder = write(
        {
            "items.csv": "asin;name;categories;average_rating\n007;One; a |b||c; 4.5\n008;;;\n",
            "interactions.tsv": "who\titem_id\trating\tat\nu\t007\t5\t1600000000\nv\t008\t\t\n",
        }
    )
    files = Files(folder, columns=column_map(["item_id=asin", "title=name", "user_id=who", "timestamp=at"]))
    assert read("csv", files) == (
        [("007", "One", None, ["a", "b", "c"], None, 4.5, 2), ("008", None, None, [], None, None, 3)],
        [("u", "007", 5.0, 1.6e9, None, None, 2), ("v", "008", None, None, None, None, 3)],
    )
    assert read(folder, Files(columns=files.columns)) == read("csv", files)


@pytest.mark.parametrize("source", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, r"items\.\w+ lacks the column 'item_id'\. It has asin, name\. Say which it is with --column item_id=NAME"),
        ({"item_id": "asim"}, r"items\.\w+ lacks the column 'asim'\. It has asin, name\. Did you mean 'asin'\?"),
        ({"item_id": "asin", "title": "Nam"}, r"items\.\w+ lacks the column 'Nam'.*Did you mean 'name'\?"),
        ({"item_id": "asin", "rating": "stars"}, r"interactions\.\w+ lacks the column 'stars'\."),
        ({"titel": "name"}, r"There is no column 'titel' to read.*Did you mean 'title'\?"),
    ],
)
def test_a_column_that_is_not_there_is_named(write, source, columns, message):
    folder = write({"items.csv": "asin,name\n1,One\n", "interactions.csv": "user_id,asin\nu,1\n"})
    if source == "parquet":
        for role in ("items", "interactions"):
            pl.read_csv(folder / f"{role}.csv").write_parquet(folder / f"{role}.parquet")
    with pytest.raises(DataError, match=message):
        find_source(source, Files(folder, columns=columns))


def test_csv_is_prepared_as_json_lines_are(logs, items, interactions, tmp_path):
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    folder = tmp_path / "tables"
    folder.mkdir()
    for role, rows in (("items", items), ("interactions", interactions)):
        pl.DataFrame(rows).write_csv(folder / f"{role}.csv")
        pl.DataFrame(rows).write_parquet(folder / f"{role}.parquet")
    expected = prepare(logs, tmp_path / "jsonl", config)
    for source in ("csv", "parquet"):
        data = prepare(source, tmp_path / source, config, files=Files(folder))
        assert data.info["source"]["name"] == source
        assert data.catalog.texts == expected.catalog.texts
        prompts = [[each.prompt(each.sessions, i) for i in range(len(each.sessions))] for each in (data, expected)]
        assert prompts[0] == prompts[1]


def test_recbole_s_columns_are_found_by_their_names(write):
    folder = write(
        {
            "shop.item": "item_id:token\tName:token_seq\trelease_year:token\tgenre:token_seq\tprice:float\n"
            '7\tThe "One" & only\t1999\tSci-Fi  Drama\t9.5\n8\tTwo (2001)\t2001\t\t\n9\t\tV\t\t\n',
            "shop.inter": "user_id:token\titem_id:token\tOverall:float\ttimestamp:float\nu\t7\t4.5\t88\nu\t8\t\t\n",
        }
    )
    expected = (
        [
            ("7", 'The "One" & only (1999)', None, ["Sci-Fi", "Drama"], "9.5", None, 2),
            ("8", "Two (2001)", None, [], None, None, 3),
            ("9", None, None, [], None, None, 4),
        ],
        [("u", "7", 4.5, 88.0, None, None, 2), ("u", "8", None, None, None, None, 3)],
    )
    assert read(folder) == read("recbole", Files(folder)) == expected
    assert find_source(folder).name == "recbole"
    mapped = read(folder, Files(columns={"title": "genre", "categories": "Name"}))[0][0]
    assert mapped[1:4] == ("Sci-Fi Drama (1999)", None, ["The", '"One"', "&", "only"])
    with pytest.raises(DataError, match=r"shop\.item lacks the column 'nome'.*Did you mean 'Name'\?"):
        find_source(folder, Files(columns={"title": "nome"}))


def test_a_wrong_row_of_recbole_s_is_left_out(write):
    folder = write(
        {
            "a.item": "item_id:token\ttitle:token_seq\n7\tSeven\n8\n",
            "a.inter": "user_id:token\titem_id:token\trating:float\nu\t7\tgood\nv\t7\t1\n",
        }
    )
    bad = BadLines("skip")
    items, interactions = read(folder, bad=bad)
    assert ([row[0] for row in items], [row[0] for row in interactions]) == (["7"], ["v"])
    assert bad.num_rows == 2


@pytest.mark.parametrize(
    ("names", "source"),
    [
        (["ml-100k.item", "ml-100k.inter"], "ml-100k"),
        (["items.jsonl.gz", "interactions.jsonl"], "jsonl"),
        (["items.tsv", "interactions.csv"], "csv"),
        (["movies.dat", "ratings.dat", "users.dat"], "ml-1m"),
        (["movies.csv", "ratings.csv", "links.csv", "tags.csv"], "ml-latest"),
        (["a.item", "a.inter"], "recbole"),
        (["Movies.jsonl.gz", "meta_Movies.jsonl.gz"], "amazon-2023"),
        (["Movies.json.gz", "meta_Movies.json.gz"], "amazon-2018"),
        (["reviews_Movies.json.gz", "meta_Movies.json.gz"], "amazon-2014"),
    ],
)
def test_a_folder_is_known_by_its_files(write, monkeypatch, names, source):
    folder = write(dict.fromkeys(names, ""))
    monkeypatch.setattr(SOURCES[source], "open_logs", lambda files: files.folder)
    found = find_source(folder)
    assert (found.name, found.logs) == (source, folder)


def test_a_folder_that_fits_no_source_or_several_is_refused(write, logs):
    with pytest.raises(DataError, match=r"holds the files of no source") as caught:
        find_source(write({"notes.txt": ""}))
    assert all(f"  {name}: {module.FILES}" in str(caught.value) for name, module in SOURCES.items())
    folder = write({"items.csv": "", "items.jsonl": ""})
    with pytest.raises(DataError, match=r"holds files of the sources jsonl and csv\. Say which"):
        find_source(folder)
    with pytest.raises(DataError, match=r"There is no source 'ml-1'\. Did you mean 'ml-1m'\?"):
        find_source("ml-1")


def test_options_that_a_source_does_not_take_are_refused(logs):
    with pytest.raises(DataError, match=r"ml-100k has fixed columns"):
        find_source("ml-100k", Files(columns={"title": "name"}))
    with pytest.raises(DataError, match=r"jsonl takes no --overview"):
        find_source(logs, Files(overview=logs / "items.jsonl"))


def test_files_may_be_given_one_by_one(tmp_path):
    (tmp_path / "a.csv").write_text("item_id,title\n1,One\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("user_id,item_id\nu,1\n", encoding="utf-8")
    items, interactions = read("csv", Files(items=tmp_path / "a.csv", interactions=tmp_path / "b.csv"))
    assert (items[0][:2], interactions[0][:2]) == (("1", "One"), ("u", "1"))


def test_json_lines_skip_bad_lines(write):
    lines = [
        '{"user_id": "u", "item_id": "a"}',
        "{",
        '{"user_id": "u"}',
        json.dumps({"user_id": "\ud800", "item_id": "a"}),
    ]
    folder = write({"items.jsonl": '{"item_id": "a", "title": "\U0001f600"}\n', "interactions.jsonl": "\n".join(lines)})
    bad = BadLines("skip")
    items, interactions = read(folder, bad=bad)
    assert (items[0][1], len(interactions)) == ("😀", 1)
    assert bad.num_rows == 3
    assert bad.first[2].encode().endswith(b"user_id = '\"\\ud800\"' identifies nothing. Give a text or a whole number.")


ITEM_FILE = "item_id:token\tname:token_seq\n" + "".join(f"i{i}\tItem {i}\n" for i in range(9))


def inter(rows, extra=""):
    """An atomic file of (user, item, time)."""
    lines = [f"{user}\t{item}\t{time}{extra and chr(9) + '4.5'}\n" for user, item, time in rows]
    return f"user_id:token\titem_id:token\ttimestamp:float{extra}\n" + "".join(lines)


def test_a_log_that_recbole_divided_is_one_log(write, tmp_path, capsys):
    """Leave-one-out: the test file has the last interaction of each user, that of validation the one before."""
    log = [(f"u{user}", f"i{(user + k) % 9}", 10 * k) for user in range(18) for k in range(7)]
    parts = {
        "train": [row for row in log if row[2] < 50],
        "valid": [row for row in log if row[2] == 50],
        "test": [row for row in log if row[2] == 60],
    }
    whole = write({"shop.item": ITEM_FILE, "shop.inter": inter(log)}).rename(tmp_path / "whole")
    files = {f"shop.{part}.inter": inter(rows) for part, rows in parts.items()}
    divided = write({"shop.item": ITEM_FILE, "shop.user": "user_id:token\nu1\n", **files})
    assert find_source(divided).name == "recbole"
    assert read(divided)[1] == [row for rows in parts.values() for row in read_parts(divided, rows)]
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    expected, data = prepare(whole, tmp_path / "a", config), prepare(divided, tmp_path / "b", config)
    assert data.sessions.targets.tolist() == expected.sessions.targets.tolist()
    assert data.sessions.histories.tolist() == expected.sessions.histories.tolist()
    hashes = data.info["source"]["sha256"]
    assert [name for name in hashes if name.endswith(".inter")] == [
        "interactions/shop.train.inter",
        "interactions 2/shop.valid.inter",
        "interactions 3/shop.test.inter",
    ]
    assert (
        capsys.readouterr().err.count("shop.train.inter and shop.valid.inter and shop.test.inter are read as one") == 1
    )
    only = read("recbole", Files(divided, interactions=divided / "shop.test.inter"))[1]
    assert len(only) == 18


def read_parts(folder, rows):
    """The rows as they are read, whose lines are counted in their own file."""
    firsts = {"train": 0, "valid": 1 << 30, "test": 2 << 30}
    part = "test" if rows[0][2] == 60 else "valid" if rows[0][2] == 50 else "train"
    return [
        (user, item, None, float(time), None, None, firsts[part] + line)
        for line, (user, item, time) in enumerate(rows, start=2)
    ]


def test_what_is_wrong_in_a_divided_log_is_named_with_its_file(write):
    files = {"a.train.inter": inter([("u", "i1", 1)]), "a.test.inter": inter([("u", "i2", 2), ("v", "i33", 3)])}
    folder = write({"a.item": ITEM_FILE, **files})
    with pytest.raises(DataError, match=r"a\.test\.inter, line 3: the item 'i33' is not in a\.item"):
        read_keys(find_source(folder).logs, BadLines())
    bad = BadLines("skip")
    assert read_keys(find_source(folder).logs, bad)[1].height == 2
    assert bad.num_rows == 1


def test_files_of_several_logs_are_not_joined(write):
    part = inter([("u", "i1", 1)])
    folder = write({"a.item": ITEM_FILE, "a.train.inter": part, "b.test.inter": part})
    with pytest.raises(DataError, match=r"holds a\.train\.inter and b\.test\.inter\. Say which"):
        find_source(folder)
    folder = write({"a.test.inter": part, "a.inter": part})
    with pytest.raises(DataError, match=r"holds .* Say which is meant with --interactions"):
        find_source(folder)


def test_parts_with_other_columns_are_joined(write):
    files = {"a.train.inter": inter([("u", "i1", 1)], "\trating:float"), "a.valid.inter": inter([("u", "i2", 2)])}
    interactions = read(write({"a.item": ITEM_FILE, **files}))[1]
    assert [row[2] for row in interactions] == [4.5, None]
