"""A checkpoint is whole or it is not there."""

import errno
from pathlib import Path

import pytest

from langptune_rs.errors import RunError
from langptune_rs.training.checkpoints import Position, list_checkpoints, read_position, save_checkpoint


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
    assert read_position(tmp_path) is None
    for step in (8, 9, 10, 100):
        save_checkpoint(tmp_path, {"policy": Engine()}, position(step), keep=9)
    assert read_position(tmp_path) == position(100)


def test_only_the_newest_are_kept(tmp_path):
    for step in range(1, 6):
        save_checkpoint(tmp_path, {"policy": Engine()}, position(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000004-0001-rlso", "step-00000005-0001-rlso"]


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=1)
    with pytest.raises(RunError, match=r"could not be written: .*No space left on device.* --resume"):
        save_checkpoint(tmp_path, {"policy": Engine(), "embedder": Engine(True)}, position(2), keep=1)
    assert read_position(tmp_path) == position(1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001-0001-rlso"]
    assert (tmp_path / "step-00000001-0001-rlso" / "policy" / "state" / "weights").read_bytes() == b"whole"


def test_what_a_killed_process_left_half_written_is_not_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=2)
    Engine().save_checkpoint(str(tmp_path / ".step-00000002.tmp" / "policy"), "state")
    Engine().save_checkpoint(str(tmp_path / "step-00000003-0001-rlso" / "policy"), "state")
    assert read_position(tmp_path) == position(1)
    save_checkpoint(tmp_path, {"policy": Engine()}, position(2), keep=2)
    assert read_position(tmp_path) == position(2)


def test_another_number_of_processes_is_refused(tmp_path):
    save_checkpoint(tmp_path, {"policy": Engine()}, position(1), keep=1)
    state = tmp_path / "step-00000001-0001-rlso" / "state.json"
    state.write_text(state.read_text().replace('"world_size": 1', '"world_size": 4'))
    with pytest.raises(RunError, match="written by 4 processes, but 1 are running. Resume with --nproc 4"):
        read_position(tmp_path)
