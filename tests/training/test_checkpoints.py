"""A checkpoint is whole or it is not there."""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from tests.processes import Forked

from langptune_rs.errors import RunError
from langptune_rs.training.checkpoints import (
    STATE,
    Position,
    list_checkpoints,
    newest_checkpoint,
    save_checkpoint,
)
from langptune_rs.training.models import save_model
from langptune_rs.training.reference import ReferenceWeights


class Engine:
    """Saves a file, or fails as a full disk does in the middle of it."""

    def __init__(self, disk_is_full: bool = False, fails_with: Exception | None = None):
        self.disk_is_full, self.fails_with = disk_is_full, fails_with

    def save_checkpoint(self, folder: str, tag: str, **options: bool) -> None:
        Path(folder, tag).mkdir(parents=True)
        Path(folder, tag, "weights").write_bytes(b"half")
        if self.fails_with:
            raise self.fails_with
        if self.disk_is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        Path(folder, tag, "weights").write_bytes(b"whole")


def position(step: int) -> Position:
    return Position(iteration=1, phase="rlso", phase_step=step, step=step)


def position_in(folder: Path) -> Position | None:
    checkpoint = newest_checkpoint(folder)
    return checkpoint and checkpoint.position


def flip_a_bit(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("words", ["[gloo/transport] Connection closed by peer", "CUDA error: out of memory"])
def test_what_no_disk_can_help_is_not_called_a_full_one(tmp_path, words):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=2)
    with pytest.raises(RuntimeError, match="closed by peer|out of memory") as raised:
        save_checkpoint(tmp_path, {"policy": Engine(fails_with=RuntimeError(words))}, position(2), keep=2)
    assert not isinstance(raised.value, RunError)
    assert position_in(tmp_path) == position(1)


def test_the_newest_position_is_read_back(tmp_path):
    assert position_in(tmp_path) is None
    for step in (8, 9, 10, 100):
        save_checkpoint(tmp_path, {"policy": Engine()}, position(step), keep=9)
    assert position_in(tmp_path) == position(100)


def test_only_the_newest_are_kept(tmp_path):
    for step in range(1, 6):
        save_checkpoint(tmp_path, {"policy": Engine()}, position(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000004-0001-rlso", "step-00000005-0001-rlso"]


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=1)
    with pytest.raises(RunError, match=r"written: .*No space.* MB free\. The last .*step-00000001-0001-rlso\. "):
        save_checkpoint(tmp_path, {"policy": Engine(), "embedder": Engine(True)}, position(2), keep=1)
    assert position_in(tmp_path) == position(1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001-0001-rlso"]
    assert (tmp_path / "step-00000001-0001-rlso" / "policy" / "state" / "weights").read_bytes() == b"whole"


def test_a_full_disk_before_the_first_checkpoint_promises_none(tmp_path):
    with pytest.raises(RunError, match=r"MB free\. There is no checkpoint yet\. Free some space"):
        save_checkpoint(tmp_path / "checkpoints", {"policy": Engine(disk_is_full=True)}, position(1), keep=1)


class ClosedEngine(Engine):
    """Fails as torch does: the writer that is closed after the first error complains about what it left."""

    def save_checkpoint(self, folder: str, tag: str, **options: bool) -> None:
        try:
            super().save_checkpoint(folder, tag, **options)
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0")


def test_the_first_error_of_a_chain_is_told(tmp_path):
    with pytest.raises(RunError, match=r"could not be written: .*No space left on device\."):
        save_checkpoint(tmp_path, {"policy": ClosedEngine(disk_is_full=True)}, position(1), keep=1)


class Model:
    """A model whose weights find a full disk."""

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").touch()
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")


def test_a_final_model_that_does_not_fit_leaves_the_last_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "checkpoints", {"policy": Engine()}, position(1), keep=1)
    with pytest.raises(RunError, match=r"policy could not be written: .*No space.* MB free\. The last .*-rlso\. "):
        save_model(Model(), tmp_path / "policy")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_reference_weights_that_do_not_fit_are_named(tmp_path, monkeypatch):
    def full(weights, path):
        path.touch()
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("langptune_rs.training.reference.save_file", full)
    with pytest.raises(RunError, match=r"reference-1\.safetensors could not be written: .* There is no checkpoint yet"):
        ReferenceWeights(torch.nn.Linear(2, 2)).save(tmp_path / "reference-1.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_half_written_is_not_a_checkpoint(tmp_path, capsys):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=2)
    Engine().save_checkpoint(str(tmp_path / ".step-00000002.tmp" / "policy"), "state")
    assert position_in(tmp_path) == position(1)
    assert capsys.readouterr().err == ""
    save_checkpoint(tmp_path, {"policy": Engine()}, position(2), keep=2)
    assert position_in(tmp_path) == position(2)
    assert names(tmp_path) == ["step-00000001-0001-rlso", "step-00000002-0001-rlso"]


def test_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("langptune_rs.training.checkpoints.world_size", lambda: 4)
        save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=1)
    with pytest.raises(RunError, match="written by 4 processes, but 1 are running. Resume with as many: --nproc 4"):
        position_in(tmp_path)


WEIGHTS = "policy/state/weights"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (lambda c: flip_a_bit(c / WEIGHTS), f"{WEIGHTS} has changed since it was written"),
    "a file cut short": (lambda c: os.truncate(c / WEIGHTS, 4), f"{WEIGHTS} has 4 bytes instead of 5"),
    "an empty file": (lambda c: os.truncate(c / WEIGHTS, 0), f"{WEIGHTS} has 0 bytes instead of 5"),
    "a missing file": (lambda c: (c / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "a missing folder": (lambda c: shutil.rmtree(c / "policy"), f"{WEIGHTS} is missing"),
    "no state": (lambda c: (c / STATE).unlink(), f"{STATE} is missing"),
    "an empty state": (lambda c: os.truncate(c / STATE, 0), f"{STATE} cannot be read"),
    "a state cut short": (lambda c: os.truncate(c / STATE, 100), f"{STATE} cannot be read"),
    "a state that is no object": (lambda c: (c / STATE).write_text("[]"), f"{STATE} has changed since it was written"),
    "another file beside it": (lambda c: flip_a_bit(c.parent / "reference"), "../reference has changed since"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, capsys, fault):
    (tmp_path / "reference").write_bytes(b"weights")
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=3)
    save_checkpoint(tmp_path, {"policy": Engine()}, position(2), keep=3)
    save_checkpoint(tmp_path, {"policy": Engine()}, position(3), keep=3, beside=[tmp_path / "reference"])
    damage, words = FAULTS[fault]
    damage(tmp_path / "step-00000003-0001-rlso")
    assert position_in(tmp_path) == position(2)
    said = capsys.readouterr().err
    assert f"{tmp_path / 'step-00000003-0001-rlso'}: {words}" in said
    assert f"going on from {tmp_path / 'step-00000002-0001-rlso'}" in said


def test_no_bit_of_the_state_can_change_unseen(tmp_path, capsys):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=2)
    save_checkpoint(tmp_path, {"policy": Engine()}, position(2), keep=2)
    state = tmp_path / "step-00000002-0001-rlso" / STATE
    whole = state.read_bytes()
    for place in range(len(whole) - 1):  # the last is the end of the line
        flip_a_bit(state, place)
        unchanged = whole[place : place + 1].isspace() and position_in(tmp_path) == position(2)
        assert unchanged or position_in(tmp_path) == position(1), whole[place : place + 1]
        state.write_bytes(whole)


def test_without_a_sound_checkpoint_all_are_named_and_nothing_starts_again(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, {"policy": Engine()}, position(step), keep=2)
        flip_a_bit(tmp_path / f"step-0000000{step}-0001-rlso" / WEIGHTS)
    with pytest.raises(RunError, match=r"(?s)No checkpoint .*step-00000002.*step-00000001.*--overwrite"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_a_broken_checkpoint_of_later_steps_never_costs_a_sound_one(tmp_path, keep):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, {"policy": Engine()}, position(step), keep=4)
    for step in (3, 4):
        flip_a_bit(tmp_path / f"step-0000000{step}-0001-rlso" / WEIGHTS)
    assert position_in(tmp_path) == position(2)
    save_checkpoint(tmp_path, {"policy": Engine()}, position(3), keep)
    assert position_in(tmp_path) == position(3)
    assert names(tmp_path) == [f"step-0000000{step}-0001-rlso" for step in (1, 2, 3)][-keep:]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save_until(operation: int, folder: Path) -> None:
    """Save a checkpoint over a broken one, in a process that kills itself at its n-th change of the file system."""
    left = operation

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        opened_to_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if opened_to_write or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    save_checkpoint(folder, {"policy": Engine(), "embedder": Engine()}, position(3), keep=2)


def test_a_kill_at_any_change_of_the_file_system_leaves_a_sound_checkpoint(tmp_path):
    found = set()
    for operation in range(200):
        folder = tmp_path / str(operation)
        for step in (1, 2, 3):
            save_checkpoint(folder, {"policy": Engine(), "embedder": Engine()}, position(step), keep=3)
        flip_a_bit(folder / "step-00000003-0001-rlso" / WEIGHTS)
        process = Forked(partial(save_until, operation, folder), {}, tmp_path / "log")
        assert process.wait(60) in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        found.add(position_in(folder).step)
        if process.returncode == 0:
            break
        save_checkpoint(folder, {"policy": Engine(), "embedder": Engine()}, position(3), keep=2)
        assert names(folder) == ["step-00000002-0001-rlso", "step-00000003-0001-rlso"]
    assert process.returncode == 0
    assert operation > 10
    assert found == {2, 3}
