"""A checkpoint is whole or it is not there."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from langptune_rs.errors import RunError
from langptune_rs.training.checkpoints import Position, list_checkpoints, read_position, save_checkpoint
from langptune_rs.training.joint import save_model
from langptune_rs.training.rlso import ReferenceWeights


class Engine:
    """Saves a file, or fails as a full disk does in the middle of it."""

    def __init__(self, disk_is_full: bool = False):
        self.disk_is_full = disk_is_full

    def save_checkpoint(self, folder: str, tag: str, **options: bool) -> None:
        Path(folder, tag).mkdir(parents=True)
        Path(folder, tag, "weights").write_bytes(b"half")
        if self.disk_is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        Path(folder, tag, "weights").write_bytes(b"whole")


def position(step: int) -> Position:
    return Position(iteration=1, phase="rlso", phase_step=step, step=step)


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

    monkeypatch.setattr("langptune_rs.training.rlso.save_file", full)
    with pytest.raises(RunError, match=r"reference-1\.safetensors could not be written: .* There is no checkpoint yet"):
        ReferenceWeights(torch.nn.Linear(2, 2)).save(tmp_path / "reference-1.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_half_written_is_not_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=2)
    Engine().save_checkpoint(str(tmp_path / ".step-00000002.tmp" / "policy"), "state")
    Engine().save_checkpoint(str(tmp_path / "step-00000003-0001-rlso" / "policy"), "state")
    assert position_in(tmp_path) == position(1)
    save_checkpoint(tmp_path, {"policy": Engine()}, position(2), keep=2)
    assert position_in(tmp_path) == position(2)


def test_another_number_of_processes_is_refused(tmp_path):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=1)
    state = tmp_path / "step-00000001-0001-rlso" / "state.json"
    state.write_text(state.read_text().replace('"world_size": 1', '"world_size": 4'))
    with pytest.raises(RunError, match="written by 4 processes, but 1 are running. Resume with --nproc 4"):
        position_in(tmp_path)
