"""What a page says of how an experiment was made."""

from pathlib import Path

import torch

from langptune_rs.distributed.failures import LostContact, ends_the_process
from langptune_rs.errors import TrainingError
from langptune_rs.experiments.machine import command_line


def test_a_command_can_be_pasted_into_a_shell():
    options = {"--output": Path("my runs"), "--set": ["a=1", "b=x y"], "--config": None, "--policy-only": True}
    assert command_line(["ablate", "reward"], {**options, "--no-guards": False}, range(3)) == (
        "langptune ablate reward --output 'my runs' --set a=1 --set 'b=x y' --policy-only --seeds 3"
    )
    assert command_line(["compare", "data"], {}, (3, 4)) == (
        "langptune compare data --seeds 2  # from Python, with seeds=(3, 4)"
    )


def test_what_ends_a_process_is_told_from_what_ends_one_run():
    assert not ends_the_process(TrainingError("The loss is nan."))
    assert ends_the_process(LostContact("Rank 0 lost the other processes."))
    for cause, ends in ((torch.OutOfMemoryError("out of memory"), False), (RuntimeError("CUDA error: gone"), True)):
        error = TrainingError("told")
        error.__cause__ = cause
        assert ends_the_process(error) == ends
