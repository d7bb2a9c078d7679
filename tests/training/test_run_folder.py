"""Who may write into a run's folder."""

import pytest

from langptune_rs.config import load_config
from langptune_rs.errors import RunError
from langptune_rs.training.run_folder import open_run, read_config

CONFIG = load_config("quickstart")


def started(folder):
    """A run that has logged its first numbers."""
    open_run(folder, CONFIG, resume=False, overwrite=False)
    (folder / "metrics.jsonl").write_text('{"step": 0}\n')
    return folder


def test_a_new_folder_gets_the_whole_configuration(tmp_path):
    open_run(tmp_path / "a" / "run", CONFIG, resume=False, overwrite=False)
    assert read_config(tmp_path / "a" / "run") == CONFIG


def test_another_run_is_refused_with_the_ways_out(tmp_path):
    with pytest.raises(
        RunError, match="already holds a run. Continue it with --resume, or replace it with --overwrite"
    ):
        open_run(started(tmp_path / "run"), CONFIG, resume=False, overwrite=False)


def test_a_run_that_never_logged_anything_is_in_nobodys_way(tmp_path):
    open_run(tmp_path / "run", CONFIG, resume=False, overwrite=False)
    changed = load_config("quickstart", ["seed=7"])
    open_run(tmp_path / "run", changed, resume=False, overwrite=False)
    assert read_config(tmp_path / "run") == changed


def test_overwrite_deletes_what_was_there(tmp_path):
    folder = started(tmp_path / "run")
    open_run(folder, CONFIG, resume=False, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["config.toml"]


def test_files_of_somebody_else_are_never_deleted(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="is not empty and holds no run"):
            open_run(tmp_path, CONFIG, resume=False, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_resuming_the_same_configuration_changes_nothing(tmp_path):
    folder = started(tmp_path / "run")
    open_run(folder, CONFIG, resume=True, overwrite=False)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 0}\n'


def test_a_changed_configuration_is_refused_with_the_difference(tmp_path):
    folder = started(tmp_path / "run")
    with pytest.raises(RunError, match=r"(?s)- seed = 0\n.*\+ seed = 7"):
        open_run(folder, load_config("quickstart", ["seed=7"]), resume=True, overwrite=False)


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(RunError, match="choose one"):
        open_run(tmp_path, CONFIG, resume=True, overwrite=True)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds no run: there is no config\.toml"):
        read_config(tmp_path)
