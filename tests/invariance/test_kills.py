"""Runs that are killed again and again end as the run that never was."""

import itertools
import random
import re
import time
from pathlib import Path

import pytest
from tests.invariance.conftest import ALWAYS, Finished
from tests.invariance.test_training import assert_same_weights, assert_trained_alike
from tests.processes import Forked, kill_after, rank_of_run, start_ranks

from langptune_rs.config import load_config, to_toml
from langptune_rs.distributed.lifeline import LOST_ANOTHER
from langptune_rs.runs.folder import LOCK
from langptune_rs.runs.metrics_log import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

OPTIONS = (*ALWAYS, "checkpoint.every=1", "logging.tensorboard=false")


@pytest.fixture(scope="module")
def recipe(train, tmp_path_factory):
    """The recipe of the other runs, with a checkpoint wherever there can be one."""
    path = tmp_path_factory.mktemp("kills") / "config.toml"
    path.write_text(to_toml(load_config(train.recipe, OPTIONS)))
    return path


def start(recipe: Path, folder: Path, log: Path, num_processes: int = 1, fault=None) -> list[Forked]:
    """The processes of a run that goes on where the one before was stopped."""
    work = rank_of_run("--config", str(recipe), "--output", str(folder), "--resume", fault=fault)
    return start_ranks(work, log, num_processes)


@pytest.mark.parametrize(("num_processes", "num_kills"), [(1, 20), (2, 4)])
def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(
    train, recipe, tmp_path, num_processes, num_kills
):
    """Each kill comes at a random moment after the processes have opened the folder, so that some fall on their start
    and others on steps, rollouts, checkpoints, the saving of the models or the evaluation."""
    log = tmp_path / "log"
    folders = (tmp_path / f"run-{number}" for number in itertools.count())
    folder = next(folders)
    started = time.monotonic()
    assert not kill_after(start(recipe, folder, log, num_processes), 240, lambda: True), log.read_text()
    whole = time.monotonic() - started
    expected = Finished(folder, 0, "")
    assert expected.losses == pytest.approx(train().losses, rel=0 if num_processes == 1 else 1e-6)
    assert_trained_alike(train, train(), expected, share=0 if num_processes == 1 else 1e-3)

    moments = random.Random(num_processes)
    kills, steps = 0, set()
    folder = next(folders)
    while kills < num_kills:
        lock = folder / LOCK
        before = lock.stat().st_mtime_ns if lock.exists() else None
        processes = start(recipe, folder, log, num_processes)
        opened = lambda lock=lock, before=before: lock.exists() and lock.stat().st_mtime_ns != before  # noqa: E731
        if kill_after(processes, moments.uniform(0, 0.6 * whole), opened):
            kills += 1
            steps.add(max((line["step"] for line in read_metrics(folder)), default=0))
        else:
            assert_same(expected, Finished(folder, 0, ""))
            folder = next(folders)
    assert not kill_after(start(recipe, folder, log, num_processes), 240, lambda: True), log.read_text()
    assert_same(expected, Finished(folder, 0, ""))
    assert "broken" not in log.read_text()
    assert len(steps) > 1


def assert_same(expected: Finished, run: Finished) -> None:
    assert run.lines == expected.lines
    assert_same_weights(expected, run)
    assert (run.folder / "report.html").is_file()


def fail_on_rank_1() -> None:
    """Let the second update of the policy raise, only on rank 1."""
    from langptune_rs.distributed.collectives import rank
    from langptune_rs.training import trainer

    step, calls = trainer.policy_step, itertools.count(1)

    def failing(*arguments):
        if next(calls) == 2 and rank() == 1:
            raise ZeroDivisionError("a fault of only this rank")
        return step(*arguments)

    trainer.policy_step = failing


def test_an_error_of_one_rank_ends_the_others_within_seconds(recipe, tmp_path):
    log = tmp_path / "log"
    processes = start(recipe, tmp_path / "run", log, 2, fail_on_rank_1)
    processes[1].wait(240)
    failed = time.monotonic()
    processes[0].wait(60)
    assert time.monotonic() - failed < 30
    assert [process.returncode for process in processes] == [LOST_ANOTHER, 1]
    said = log.read_text()
    assert said.count("Traceback") == 1
    assert re.search(r"error: Rank 1 of 2 on .* failed: ZeroDivisionError: a fault of only this rank", said)
    assert "run again with --resume" in said


def test_a_run_goes_on_from_the_checkpoint_before_a_broken_one(train):
    options = ("checkpoint.every=1", "checkpoint.keep=3", "logging.tensorboard=false")
    expected = train(*options)
    killed = train.stop_at(9, 9, *options)
    *_, newest = sorted((killed.folder / "checkpoints").glob("step-*"))
    weights = next(newest.rglob("*.pt"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    resumed = train(*options, resume=killed.folder)
    assert resumed.exit_code == 0, resumed.stderr
    assert f"warning: a checkpoint is broken and left out, {newest}: " in resumed.stderr
    assert "has changed since it was written" in resumed.stderr
    assert_same(expected, resumed)
