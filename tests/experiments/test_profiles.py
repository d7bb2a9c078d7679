"""Profiles of a whole data set: every session once, the same however the work was cut and stopped."""

import json
import re
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from tests.experiments.tiny import make_run
from tests.processes import Forked, command, run_command

from langptune_rs.data import load
from langptune_rs.data.store.folder import INFO, save
from langptune_rs.errors import DataError, RunError
from langptune_rs.experiments.profiles import SESSIONS_PER_PART, Job, opened_parts, profile_sessions
from langptune_rs.files import file_hash


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run whose sessions make four parts."""
    return make_run(tmp_path_factory.mktemp("profiled [1] *"), num_users=430)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> Path:
    """All profiles, written without a pause."""
    out = tmp_path_factory.mktemp("whole") / "profiles.parquet"
    assert profile_sessions(run, out, samples=1) == 0
    return out


def test_every_session_has_its_profiles_once_and_in_order(run, whole):
    sessions = load(run / "data").sessions
    assert len(sessions) > 3 * SESSIONS_PER_PART
    table = pl.read_parquet(whole)
    assert table.columns == ["session_id", "user_id", "split", "sample", "profile", "num_tokens", "finished"]
    for sample in (0, 1):
        rows = table.filter(pl.col("sample") == sample)
        assert rows["session_id"].to_list() == sessions.session_ids.tolist()
        assert rows["user_id"].to_list() == sessions.user_ids.to_list()
        assert rows["split"].to_list() == list(sessions.splits)
    assert table["num_tokens"].is_between(1, 12).all()
    assert not whole.with_name("profiles.parquet.parts").exists()


def test_they_are_those_of_the_evaluation(evaluated_run, tmp_path, capsys):
    """Sample 0 is the evaluation's greedy profile, sample s + 1 its sample s."""
    out = tmp_path / "profiles.parquet"
    profile_sessions(evaluated_run, out, split="test", samples=2)
    assert re.search(r"profiles: 96/96, [\d.]+/s, 0 s left", capsys.readouterr().err)
    found = pl.read_parquet(out)
    expected = pl.read_parquet(evaluated_run / "profiles.parquet").filter(pl.col("policy") == "LangPTune")
    place = pl.when(pl.col("decoding") == "greedy").then(0).otherwise(pl.col("sample") + 1)
    expected = expected.with_columns(sample=place).sort("session_id", "sample")
    found = found.sort("session_id", "sample")
    for mine, theirs in (("session_id",) * 2, ("profile", "text"), ("num_tokens", "tokens"), ("finished",) * 2):
        assert found[mine].to_list() == expected[theirs].to_list()


def test_profiles_that_were_killed_go_on_to_the_same_bytes(run, whole, tmp_path, tmp_path_factory):
    """Killed once each number of parts is there, from none to all."""
    log = tmp_path_factory.mktemp("killed") / "log"
    out = tmp_path / "profiles.parquet"
    parts = tmp_path / "profiles.parquet.parts"
    kept = {}
    for number in range(5):
        process = Forked(partial(profile_sessions, run, out, samples=1), {}, log)
        while process.poll() is None and not (parts / "job.json").exists():
            time.sleep(0.001)
        while process.poll() is None and len(list(parts.glob("0*.parquet"))) < number:
            time.sleep(0.001)
        process.kill()
        process.wait()
        now = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.parquet")} if parts.exists() else {}
        assert out.exists() or kept.items() <= now.items()
        kept = now
    assert profile_sessions(run, out, samples=1) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.parquet"]


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one_also_when_stopped_and_killed(run, whole, tmp_path, tmp_path_factory):
    out = tmp_path / "profiles.parquet"
    parts = tmp_path / "profiles.parquet.parts"
    arguments = ("profiles", str(run), str(out), "--samples", "1", "--nproc", "2")

    def stopped_by(sent, log):
        """The launcher's exit code, for a signal after the next part is there."""
        before = len(list(parts.glob("0*.parquet")))
        launcher = Forked(command(*arguments), {}, log)
        while launcher.poll() is None and len(list(parts.glob("0*.parquet"))) == before:
            time.sleep(0.005)
        launcher.send_signal(sent)
        return launcher.wait()

    for sent, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        log = tmp_path_factory.mktemp("stopped") / "log"
        found = stopped_by(sent, log)
        for _ in range(4):
            if found != 0:
                break
            out.unlink()  # on a busy machine all was written before the signal came
            found = stopped_by(sent, log)
        assert found == code
        says = "\nStopped. What is finished is kept; the same command goes on.\n"
        assert log.read_text().endswith(says) == (sent == signal.SIGINT), log.read_text()
    assert run_command(*arguments, folder=tmp_path) == f"Profiles written to {out}\n"
    assert out.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.parquet"]


def test_a_file_that_is_complete_is_left_as_it_is(run, whole, tmp_path):
    out = tmp_path / "profiles.parquet"
    shutil.copy(whole, out)
    before = out.stat()
    assert profile_sessions(run, out, samples=1) == 0
    after = out.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)  # reading it changes the rest


@pytest.mark.parametrize("content", [b"my own work", b"", "parquet"])
def test_a_file_of_something_else_is_never_overwritten(run, tmp_path, content):
    out = tmp_path / "out.parquet"
    if content == "parquet":
        pl.DataFrame({"profile": ["mine"]}).write_parquet(out)
    else:
        out.write_bytes(content)
    before = out.read_bytes()
    with pytest.raises(RunError, match=r"out\.parquet is there already, and no file of profiles"):
        profile_sessions(run, out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_other_profiles_and_their_parts_are_not_mixed_with_these(run, whole, tmp_path):
    out = tmp_path / "profiles.parquet"
    shutil.copy(whole, out)
    with pytest.raises(RunError, match=r"holds other profiles: their split is 'all', not 'test'"):
        profile_sessions(run, out, split="test", samples=1)
    assert out.read_bytes() == whole.read_bytes()
    out.unlink()
    parts = tmp_path / "profiles.parquet.parts"
    parts.mkdir()
    (parts / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="holds something else"):
        profile_sessions(run, out)
    (parts / "job.json").write_text("{}")
    with pytest.raises(RunError, match="parts of other profiles"):
        profile_sessions(run, out)
    assert (parts / "thesis.tex").read_text() == "years of work"


def rewritten(folder: Path) -> None:
    """Write a data set's files as another version of the libraries may: other bytes that hold the same."""
    info = (folder / INFO).read_text()
    for name in ("items.parquet", "sessions.parquet"):
        old = file_hash(folder / name)
        pl.read_parquet(folder / name).write_parquet(folder / name, compression="uncompressed", row_group_size=7)
        assert file_hash(folder / name) != old
        info = info.replace(old, file_hash(folder / name))
    (folder / INFO).write_text(info)


def test_data_in_other_files_gives_the_same_profiles(run, whole, tmp_path):
    copy, out = tmp_path / "run", tmp_path / "profiles.parquet"
    shutil.copytree(run, copy)
    shutil.copy(whole, out)
    rewritten(copy / "data")
    made_of = Job.open(copy, "all", 1).made_of
    assert made_of == Job.open(run, "all", 1).made_of
    assert profile_sessions(copy, out, samples=1) == 0
    assert out.read_bytes() == whole.read_bytes()
    sessions = pl.read_parquet(copy / "data" / "sessions.parquet").with_columns(split=pl.lit("train"))
    save(copy / "data", pl.read_parquet(copy / "data" / "items.parquet"), sessions, load(copy / "data").info)
    with pytest.raises(RunError, match="holds other profiles: their data is "):
        profile_sessions(copy, out, samples=1)


def test_profiles_that_an_earlier_version_began_go_on(run, whole, tmp_path):
    """It noted the hashes of the data's files."""
    job = Job.open(run, "all", 1)
    before = {**job.made_of, "data": job.run.dataset.info["sha256"]}
    out = tmp_path / "profiles.parquet"
    metadata = {b"langptune.made_of": json.dumps(before).encode()}
    pq.write_table(pq.read_table(whole).replace_schema_metadata(metadata), out)
    written = out.read_bytes()
    assert profile_sessions(run, out, samples=1) == 0
    assert out.read_bytes() == written
    out.unlink()
    parts = tmp_path / "profiles.parquet.parts"
    parts.mkdir()
    (parts / "job.json").write_text(json.dumps(before))
    with opened_parts(out, job.made_of, job.made_of_before):
        assert json.loads((parts / "job.json").read_text()) == job.made_of
    (parts / "job.json").write_text(json.dumps({**before, "data": {"items.parquet": "0"}}))
    with pytest.raises(RunError, match="parts of other profiles: their data is "):
        profile_sessions(run, out, samples=1)


def test_a_run_without_a_policy_and_a_split_without_sessions_are_refused(run, tmp_path):
    shutil.copy(run / "config.toml", tmp_path)
    with pytest.raises(RunError, match=r"no trained policy.*--resume"):
        profile_sessions(tmp_path, tmp_path / "out.parquet")
    with pytest.raises(DataError, match="nosplit"):
        profile_sessions(run, tmp_path / "out.parquet", split="nosplit")
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_second_command_leaves_the_first_alone(run, whole, tmp_path):
    out = tmp_path / "profiles.parquet"
    with (
        opened_parts(out, Job.open(run, "all", 1).made_of),
        pytest.raises(RunError, match=r"Another process is writing .*profiles\.parquet"),
    ):
        profile_sessions(run, out, samples=1)
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.parquet.parts"]
