"""Folders and files of any name: none is a pattern, an address or a column; and disks without room."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config.data import DataConfig
from langptune_rs.data import load, prepare
from langptune_rs.data.readers.form import read_form
from langptune_rs.data.sources.files import Files
from langptune_rs.data.store.tables import open_parquet, read_parquet, scan_parquet, write_parquet
from langptune_rs.errors import DataError

ROOT = Path(__file__).parents[2]
NAMES = (
    *("run [1]", "[!a]*", "what?", "{a,b}", "100%20#1", "year=2020", "ü \U0001f600", "-rf", "two\nlines", "~", "~root"),
    *("s3:", "file:", "$HOME", "a'b\"c", "tab\t", " lead ", "back\\slash", "[bold]x"),
)
UNLIMITED = DataConfig(max_item_tokens=None, max_history_tokens=None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A source of parquet files, and the data set made of it under a plain name."""
    folder = tmp_path_factory.mktemp("plain")
    items = [{"item_id": f"i{i}", "title": f"Item {i}", "categories": ["a", "b"]} for i in range(8)]
    taken = [
        {"user_id": f"u{user}", "item_id": f"i{(user + k) % 8}", "rating": 4.0, "timestamp": 10.0 * k}
        for user in range(16)
        for k in range(6)
    ]
    source = folder / "source"
    source.mkdir()
    pl.DataFrame(items).write_parquet(source / "items.parquet")
    pl.DataFrame(taken).write_parquet(source / "interactions.parquet")
    for name, rows in (("items", items), ("interactions", taken)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return source, prepare(source, folder / "out", UNLIMITED)


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_the_same_in_a_folder_of_any_name(made, tmp_path, monkeypatch, name):
    source, expected = made
    shutil.copytree(source, tmp_path / name / "source")
    monkeypatch.chdir(tmp_path)
    for here in (tmp_path, Path()):
        out = here / name / f"out {here.is_absolute()}"
        data = prepare(here / name / "source", out, UNLIMITED)
        assert data.info == expected.info == load(out).info
        assert data.catalog.texts == expected.catalog.texts
    shutil.rmtree(out / "arrow")
    assert load(out).sessions.reviews == expected.sessions.reviews


@pytest.mark.parametrize("name", ["run [1]", "[bold]*?{a}", "ü\U0001f600 \t%#", "two\nlines"])
def test_files_and_folders_of_any_name_go_through_the_command(made, tmp_path, monkeypatch, name):
    """File names are keys of dataset.toml. Polars reads the parquet files again for `inspect`."""
    source = made[0].parent
    folder = tmp_path / name
    folder.mkdir()
    items, taken = folder / f"items {name}.jsonl", folder / f"log {name}.jsonl"
    shutil.copy(source / "items.jsonl", items)
    shutil.copy(source / "interactions.jsonl", taken)
    template = folder / f"{name}.jinja"
    template.write_text('{% set things = "toys" %}', encoding="utf-8")
    options = ["--max-item-tokens", "0", "--max-history-tokens", "0", "--template", str(template)]
    arguments = ["data", "prepare", "jsonl", str(folder / "out"), "--items", str(items), "--interactions", str(taken)]
    for again in ([], [], ["--overwrite"]):
        done = CliRunner().invoke(app, [*arguments, *options, *again])
        assert done.exit_code == 0, done.output
    assert f"interactions/log {name}.jsonl" in load(folder / "out").info["source"]["sha256"]
    shown = CliRunner().invoke(app, ["data", "inspect", str(folder / "out")])
    assert shown.exit_code == 0, shown.output
    assert (folder / "out-inspect" / "histograms.png").is_file()
    assert name.split("\n")[0] in shown.output


def test_a_name_that_is_no_text_is_refused_before_anything_is_written(made, tmp_path):
    bad = tmp_path / os.fsdecode(b"caf\xe9")
    for source, out in ((made[0], bad / "out"), (bad, tmp_path / "out")):
        shutil.copytree(made[0], bad, dirs_exist_ok=True)
        before = sorted(map(str, tmp_path.rglob("*")))
        with pytest.raises(DataError, match=r"is no UTF-8.*Rename it"):
            prepare(source, out, UNLIMITED)
        assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.mark.parametrize(("name", "reason"), [("x" * 300, "File name too long"), ("file/out", "Not a directory")])
def test_a_folder_that_cannot_be_is_named(made, tmp_path, name, reason):
    (tmp_path / "file").touch()
    said = CliRunner().invoke(app, ["data", "prepare", str(made[0]), str(tmp_path / name), "--max-item-tokens", "0"])
    assert (said.exit_code, name in said.stderr, reason in said.stderr) == (2, True, True)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_written_and_read_by_its_own_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    file, table = Path(name) / f"{name}.parquet", pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    write_parquet(table, file)
    assert read_parquet(file).equals(table)
    assert read_parquet(file, ["b"]).columns == ["b"]
    assert scan_parquet(file).collect_schema().names() == ["a", "b"]
    with open_parquet(file) as opened:
        assert opened.read().column_names == ["a", "b"]


def test_no_other_file_hands_a_path_to_polars_or_glob():
    """`store/tables.py` does. Another place would take "[1]" in a folder's name for a pattern."""
    taken = re.compile(
        r"\bpl\.(?:read|scan|sink)_(?:parquet|ipc|ndjson|csv)\w*\((?!text,|lines\.block,|$)"
        r"|\.(?:write|sink)_(?:parquet|ipc|ndjson|csv)\(|pq\.(?:read_table|ParquetFile|ParquetDataset)\(|\biglob\(|\bglob\.glob\("
    )
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for folder in ("python", "cli")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if file.name != "tables.py" or file.parent.name != "store"
        for line in file.read_text(encoding="utf-8").splitlines()
        if taken.search(line)
    ]
    assert found == []


def test_the_columns_of_a_file_of_any_name_are_read(tmp_path):
    file = tmp_path / "[a]*.csv"
    file.write_text("item_id,title\n1,One\n", encoding="utf-8")
    assert read_form(file).names == ("item_id", "title")
    assert Files(items=file).find("items", "csv", "items.csv") == file


def test_a_table_on_a_full_disk_is_an_error_of_the_file_system():
    """As that of any other file is, so that the command line says it in one line."""
    table = pl.DataFrame({"n": range(100_000)})
    with pytest.raises(OSError, match="No space left on device") as found:
        write_parquet(table, Path("/dev/full"))
    assert (found.value.errno, found.value.filename) == (errno.ENOSPC, "/dev/full")
