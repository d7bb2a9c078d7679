"""A run works with the data that it was trained on, and with no other."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.experiments.tiny import make_run
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.baselines.langptune import LangPTune
from langptune_rs.config import load_config, to_toml
from langptune_rs.config.data import make_config
from langptune_rs.data import load, prepare
from langptune_rs.data.store.folder import INFO, ITEMS, save
from langptune_rs.errors import RunError
from langptune_rs.files import file_hash
from langptune_rs.runs.folder import CONFIG, note_data, open_dataset, read_config
from langptune_rs.runs.origin import ORIGIN

COMMANDS = {
    "train": ["train", "--output", "run", "--resume"],
    "evaluate": ["evaluate", "run"],
    "profile": ["profile", "run", "--user", "u1"],
    "profiles": ["profiles", "run", "profiles.parquet"],
    "recommend": ["recommend", "run", "--user", "u1"],
    "recommend for a text": ["recommend", "run", "--profile", "cats"],
    "report": ["report", "run"],
}
UNLIMITED = {"max_item_tokens": None, "max_history_tokens": None, "windows": "all"}


def prepared(logs: Path, out: Path, **settings: object) -> Path:
    prepare(logs, out, make_config(**{**UNLIMITED, **settings}), overwrite=True)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in `run` that was trained on `data`, which was prepared from `source`."""
    folder = tmp_path_factory.mktemp("made")
    run = make_run(folder)
    data = prepared(folder / "source", folder / "data")
    limits = ["data.max_item_tokens=none", "data.max_history_tokens=none"]
    config = load_config(run / CONFIG, [f"data.source={data}", *limits])
    (run / CONFIG).write_text(to_toml(config))
    note_data(run, load(data))
    (run / "results.json").write_text("{}")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working folder. The run finds its data beside it, as it was moved with it."""
    shutil.copytree(made, tmp_path / "place")
    origin = tmp_path / "place" / "run" / ORIGIN
    config = tmp_path / "place" / "run" / CONFIG
    for file in (origin, config):
        file.write_text(file.read_text().replace(str(made), str(tmp_path / "place")))
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def opened(place: Path) -> object:
    return open_dataset(read_config(place / "run"), place / "run")


def refusal(place: Path) -> str:
    with pytest.raises(RunError, match="no longer holds the data that .*run was trained on") as refused:
        opened(place)
    return str(refused.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_goes_on_with_replaced_data(place, command):
    prepared(place / "source", place / "data", seed=5)
    done = CliRunner().invoke(app, COMMANDS[command], catch_exceptions=False)
    said = done.stderr.strip()
    assert done.exit_code == 2, said
    assert said.splitlines()[-1].startswith(f"error: {place / 'data'} no longer holds the data that run was trained on")
    assert "What differs: which sessions train and which are held out (items: 40, " in said
    assert "prepared with another seed: 0 then, 5 now" in said
    assert "Put the data back as it was, or train a new run" in said


def longer(place: Path) -> None:
    with (place / "source" / "interactions.jsonl").open("a") as file:
        file.writelines(
            json.dumps({"user_id": "new", "item_id": f"i{item}", "timestamp": item}) + "\n" for item in range(0, 40, 4)
        )
    prepared(place / "source", place / "data")


def renamed(place: Path) -> None:
    items = place / "source" / "items.jsonl"
    items.write_text(items.read_text().replace("Story 7 ", "Tale 7 "))
    prepared(place / "source", place / "data")


def reworded(place: Path) -> None:
    (place / "mine.jinja").write_text('{% set things = "stories" %}')
    prepared(place / "source", place / "data", template=str(place / "mine.jinja"))


def written_by_hand(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        data = load(place / "data")
        tables = {name: pl.read_parquet(place / "data" / f"{name}.parquet") for name in ("items", "sessions")}
        save(place / "data", tables["items"], change(tables["sessions"]), data.info)

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (longer, r"the histories, what was chosen next, .*train: \d+ then, \d+ now"),
        (renamed, r"What differs: the items \("),
        (reworded, r"What differs: .*the wording of the prompts \(.*another template: generic then, .*mine\.jinja now"),
        (written_by_hand(lambda rows: rows.reverse()), "What differs: the histories"),
        (
            written_by_hand(lambda rows: rows.with_columns(split=pl.col("split").replace({"test": "validation"}))),
            r"What differs: which sessions train and which are held out \(.*test: \d+ then, 0 now",
        ),
        (
            written_by_hand(lambda rows: rows.with_columns(ratings=pl.lit([1.0] * 4))),
            r"What differs: the histories \(",
        ),
    ],
    ids=["longer", "renamed", "reworded", "reversed", "other splits", "other ratings"],
)
def test_whatever_differs_is_named(place, change, message):
    change(place)
    assert re.search(message, refusal(place))


def test_data_that_is_prepared_again_is_the_same(place):
    content = load(place / "data").content
    shutil.rmtree(place / "data")
    prepared(place / "source", place / "data")
    assert opened(place).content == content


def test_data_in_other_files_is_the_same(place):
    """As another version of the libraries may write them."""
    data = load(place / "data")
    before = file_hash(place / "data" / ITEMS)
    tables = [pl.read_parquet(place / "data" / f"{name}.parquet") for name in ("items", "sessions")]
    for table, name in zip(tables, ("items", "sessions"), strict=True):
        table.write_parquet(place / "data" / f"{name}.parquet", compression="uncompressed", row_group_size=7)
    info = place / "data" / INFO
    text = info.read_text()
    for name, old in data.info["sha256"].items():
        text = text.replace(old, file_hash(place / "data" / name))
    info.write_text(text)
    assert before != file_hash(place / "data" / ITEMS)
    assert opened(place).content == data.content


def test_a_file_that_was_changed_under_its_old_times_is_noticed(place):
    """As a copy that keeps times leaves it."""
    file = place / "data" / ITEMS
    load(place / "data")
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(Exception, match=r"items\.parquet has changed since dataset\.toml was written"):
        opened(place)


def test_hashes_that_were_put_right_by_hand_say_nothing_of_the_content(place):
    file, info = place / "data" / "sessions.parquet", place / "data" / INFO
    old = file_hash(file)
    pl.read_parquet(file).with_columns(split=pl.lit("train")).write_parquet(file)
    info.write_text(info.read_text().replace(old, file_hash(file)))
    assert "What differs: which sessions train and which are held out" in refusal(place)


def test_the_first_load_after_saving_hashes_nothing(place, monkeypatch):
    monkeypatch.setattr("langptune_rs.data.store.folder._check", lambda *_: pytest.fail("hashed again"))
    prepared(place / "source", place / "data")
    load(place / "data")


def test_a_run_goes_on_with_the_data_that_it_prepared_itself(place):
    """Its source may be another by now."""
    run = place / "run"
    config = load_config(run / CONFIG, [f"data.source={place / 'source'}"])
    (run / ORIGIN).unlink()
    (run / "metrics.jsonl").unlink()
    dataset = open_dataset(config, run)
    note_data(run, dataset)
    (run / CONFIG).write_text(to_toml(config))
    (place / "source" / "interactions.jsonl").unlink()
    assert opened(place).content == dataset.content
    shutil.rmtree(place / "data")
    shutil.rmtree(place / "source")
    assert opened(place).content == dataset.content
    shutil.rmtree(run / "data")
    with pytest.raises(RunError, match=r"The data of .*run is not there: data\.source is .*source\. Put it back"):
        opened(place)


def test_a_run_of_before_says_that_its_data_is_not_known(place, capsys):
    (place / "run" / ORIGIN).unlink()
    assert len(opened(place).sessions)
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1
    assert f"has not noted which data it was trained on, as runs of this version do. Whether {place / 'data'} " in said


def test_a_run_of_before_is_still_kept_from_data_with_other_settings(place):
    (place / "run" / ORIGIN).unlink()
    prepared(place / "source", place / "data", seed=5)
    assert "prepared with another seed: 0 then, 5 now" in refusal(place)


@pytest.mark.parametrize("text", ["{", "[]", '{"folder": 3}', '{"folder": "/x", "data": {"contents": {}}}'])
def test_a_damaged_note_is_named(place, text):
    (place / "run" / ORIGIN).write_text(text)
    with pytest.raises(RunError, match=r"origin\.json is damaged .* Restore"):
        opened(place)


def test_a_saved_method_knows_its_data(place, tmp_path):
    dataset = opened(place)
    LangPTune.open(place / "run", dataset).save(tmp_path / "saved")
    LangPTune.open(tmp_path / "saved", dataset)
    other = replace(dataset, sessions=dataset.sessions.take(range(9)), info={})
    with pytest.raises(RunError, match="the data set given no longer holds"):
        LangPTune.open(tmp_path / "saved", other)
