"""The time of a recommendation by a method of a run."""

import time

import numpy as np
import pytest

from langptune_rs.errors import RunError
from langptune_rs.experiments.compare import timing
from langptune_rs.experiments.compare.from_runs import rows_of_runs
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.compare.timing import SESSIONS, milliseconds_of, timed_rows
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.runs.folder import open_dataset, read_config


@pytest.fixture
def compared(noted_run):
    dataset = open_dataset(read_config(noted_run), noted_run)
    ranked = Ranked(noted_run / "data", dataset.content, "test", None, 0, 20)
    return *rows_of_runs([noted_run], ranked, None), ranked, dataset


def test_every_row_of_a_run_is_timed_once_and_kept(compared, tmp_path, monkeypatch):
    rows, sessions, ranked, dataset = compared
    timed = timed_rows(rows, sessions, ranked, dataset, tmp_path)
    assert [row.name for row in timed] == ["LangPTune-0", "LangPTune", "LangPTune-0, sampled", "LangPTune, sampled"]
    assert all(row.costs["milliseconds"] > 0 for row in timed)
    assert all(
        after.costs["fit_seconds"] == before.costs["fit_seconds"] for after, before in zip(timed, rows, strict=True)
    )
    monkeypatch.setattr(timing, "milliseconds_of", None)
    again = timed_rows(rows, sessions, ranked, dataset, tmp_path)
    assert [row.costs for row in again] == [row.costs for row in timed]
    next(tmp_path.glob("langptune-0-greedy-*.json")).write_text("{")
    with pytest.raises(RunError, match="is damaged. Remove that file"):
        timed_rows(rows, sessions, ranked, dataset, tmp_path)


def test_the_time_is_that_of_writing_and_ranking_for_each_session(compared, noted_run, monkeypatch):
    """A policy that sleeps takes as much longer, and its first call is not counted."""
    _, sessions, ranked, dataset = compared
    first = timing._first(sessions, ranked, dataset)
    assert 2 < len(first) <= SESSIONS
    assert first.session_ids.tolist() == sessions["session_id"][: len(first)].to_list()
    write, asked = ProfileWriter.write, []

    def slow(self, prompts, **options):
        asked.append((len(prompts), options["greedy"], options["num_samples"]))
        time.sleep(5.0 if len(asked) == 1 else 1.0)
        return write(self, prompts, **options)

    monkeypatch.setattr(ProfileWriter, "write", slow)
    found = milliseconds_of(noted_run, "LangPTune", "sampled", first, dataset)
    assert asked == [(2, False, 1), (len(first), False, 1)]
    assert 1000 / len(first) <= found < 5000 / len(first)
    assert np.isfinite(found)
