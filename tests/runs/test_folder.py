"""Who may write into a run's folder."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from langptune_rs.config import load_config, to_toml
from langptune_rs.errors import RunError
from langptune_rs.runs.folder import LOCK, WRITTEN, opened_run, read_config
from langptune_rs.runs.results import per_user_path, profiles_path, results_path

CONFIG = load_config("quickstart")


def open_run(folder, config=CONFIG, *, resume=False, overwrite=False):
    """A run that opens its folder and ends."""
    with opened_run(folder, config, resume=resume, overwrite=overwrite):
        pass


def started(folder):
    """A run that has logged its first numbers."""
    open_run(folder)
    (folder / "metrics.jsonl").write_text('{"step": 0}\n')
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_gets_the_whole_configuration(tmp_path):
    open_run(tmp_path / "a" / "run")
    assert read_config(tmp_path / "a" / "run") == CONFIG


def test_another_run_is_refused_with_the_ways_out(tmp_path):
    with pytest.raises(
        RunError, match="already holds a run. Continue it with --resume, or replace it with --overwrite"
    ):
        open_run(started(tmp_path / "run"))


def test_a_run_that_never_logged_anything_is_in_nobodys_way(tmp_path):
    open_run(tmp_path / "run")
    (tmp_path / "run" / "data").mkdir()
    (tmp_path / "run" / "data" / "items.parquet").touch()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    changed = load_config("quickstart", ["seed=7"])
    open_run(tmp_path / "run", changed)
    assert read_config(tmp_path / "run") == changed
    assert names(tmp_path / "run") == [LOCK, "config.toml", "notes.txt"]


def test_a_configuration_that_no_run_has_used_is_not_replaced(tmp_path):
    (tmp_path / "config.toml").write_text(to_toml(load_config("quickstart", ["seed=7"])))
    with pytest.raises(RunError, match="already holds a run"):
        open_run(tmp_path)
    open_run(tmp_path, read_config(tmp_path), resume=True)
    assert read_config(tmp_path).seed == 7


def test_overwrite_deletes_what_was_there(tmp_path):
    folder = started(tmp_path / "run")
    for name in (".results.json.12.tmp", ".policy.tmp"):
        (folder / name).touch()
    (folder / "checkpoints" / "step-00000001-0000-rlso").mkdir(parents=True)
    (folder / "policy").symlink_to(tmp_path)
    open_run(folder, overwrite=True)
    assert names(folder) == [LOCK, "config.toml"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("config", [None, "seed = 7\n", '[package]\nname = "thesis"\n', "\xff"])
def test_files_of_somebody_else_are_never_deleted(tmp_path, config, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    if config:
        (tmp_path / "config.toml").write_text(config, encoding="latin-1")
    before = names(tmp_path)
    with pytest.raises(RunError, match="is not empty .* and holds no run"):
        open_run(tmp_path, overwrite=overwrite)
    assert names(tmp_path) == before


@pytest.mark.parametrize("foreign", ["thesis.tex", "data/ratings.csv"])
def test_overwrite_is_refused_beside_files_of_somebody_else(tmp_path, foreign):
    folder = started(tmp_path / "run")
    (folder / "data").mkdir()
    (folder / foreign).write_text("years of work")
    with pytest.raises(RunError, match=rf"--overwrite deletes what a run writes, but .*{foreign} is none of it"):
        open_run(folder, overwrite=True)
    assert (folder / foreign).read_text() == "years of work"
    assert (folder / "metrics.jsonl").exists()
    (folder / "metrics.jsonl").unlink()
    open_run(folder)
    assert (folder / foreign).read_text() == "years of work"


def test_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match="run is a file"):
        open_run(tmp_path / "run")


def test_what_an_evaluation_writes_belongs_to_the_run(tmp_path):
    for split in ("train", "validation", "test"):
        assert {path(tmp_path, split).name for path in (results_path, per_user_path, profiles_path)} <= set(WRITTEN)


@pytest.mark.parametrize("choice", [{}, {"resume": True}, {"overwrite": True}])
def test_a_run_in_progress_keeps_every_other_out(tmp_path, choice):
    with ExitStack() as stack:
        stack.enter_context(opened_run(tmp_path / "run", CONFIG, resume=False, overwrite=False))
        with pytest.raises(RunError, match=rf"A run is in progress in .*run \(process {os.getpid()}\)\. Wait"):
            open_run(tmp_path / "run", **choice)
    open_run(tmp_path / "run", **choice)


def test_a_killed_run_lets_its_folder_go(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from langptune_rs.config import load_config; "
        "from langptune_rs.runs.folder import opened_run\n"
        "with opened_run(Path(sys.argv[1]), load_config('quickstart'), resume=False, overwrite=False):\n"
        "    print('in', flush=True); time.sleep(600)"
    )
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(RunError, match=rf"\(process {holder.pid}\)"):
            open_run(folder, resume=True)
        holder.send_signal(signal.SIGKILL)
    open_run(folder, resume=True)


def test_resuming_the_same_configuration_changes_nothing(tmp_path):
    folder = started(tmp_path / "run")
    open_run(folder, resume=True)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 0}\n'


def test_a_changed_configuration_is_refused_with_the_difference(tmp_path):
    folder = started(tmp_path / "run")
    with pytest.raises(RunError, match=r"(?s)- seed = 0\n.*\+ seed = 7"):
        open_run(folder, load_config("quickstart", ["seed=7"]), resume=True)


def test_keys_of_memory_may_change_when_a_run_is_resumed(tmp_path):
    folder = started(tmp_path / "run")
    (folder / "checkpoints").mkdir()
    kept = folder / "checkpoints" / "profiles-0-0-of-1.jsonl"
    kept.write_text("[]\n")
    smaller = load_config("quickstart", ["rlso.micro_batch_tokens=512", "rlso.gradient_checkpointing=true"])
    open_run(folder, smaller, resume=True)
    assert read_config(folder) == smaller
    assert kept.is_file()
    other_batches = load_config("quickstart", ["profile.token_budget=512"])
    open_run(folder, other_batches, resume=True)
    assert read_config(folder) == other_batches
    assert not kept.is_file()


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(RunError, match="choose one"):
        open_run(tmp_path, resume=True, overwrite=True)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds no run: there is no config\.toml"):
        read_config(tmp_path)
