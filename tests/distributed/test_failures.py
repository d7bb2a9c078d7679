"""What is said when memory, a GPU or another process is lost."""

import re
import socket

import pytest
import torch

from langptune_rs.config import load_config
from langptune_rs.distributed.failures import CONTRASTIVE, HALVED, RLSO, WRITING, LostContact, explained
from langptune_rs.errors import TrainingError


def said(error: BaseException, phase: str = WRITING, *overrides: str) -> str:
    with pytest.raises(TrainingError) as raised, explained(phase, load_config("quickstart", overrides)):
        raise error
    return str(raised.value)


@pytest.mark.parametrize("phase", [WRITING, CONTRASTIVE, RLSO])
def test_memory_that_the_allocator_refuses_names_the_phase_and_half_of_its_key(phase):
    config = load_config("quickstart")
    with pytest.raises(TrainingError) as raised, explained(phase, config):
        torch.empty(2**60, dtype=torch.uint8)
    message = str(raised.value)
    assert f"Rank 0 of 1 on {socket.gethostname()} ran out of memory while {phase}" in message
    key, half, now = re.search(r"Set (\S+) = (\d+) \(now (\d+)\)", message).groups()
    assert key == HALVED[phase]
    assert int(half) == int(now) // 2
    load_config("quickstart", [f"{key}={half}"])


def test_a_gpus_memory_and_pythons_are_explained_too():
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ):
        assert "profile.token_budget = 16384 (now 32768)" in said(error)


def test_what_is_set_already_is_not_proposed():
    overrides = ("rlso.micro_batch_tokens=1", "engine.zero_stage=3", "engine.offload=parameters")
    message = said(MemoryError(), RLSO, *overrides)
    assert "micro_batch_tokens =" not in message
    assert "offload =" not in message


def test_a_lost_gpu_says_how_to_go_on():
    message = said(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), RLSO)
    assert "lost its GPU while training the policy" in message or "lost GPU" in message
    assert "--resume" in message


def test_a_fault_of_the_program_is_no_lost_gpu():
    with pytest.raises(RuntimeError) as raised, explained(RLSO, load_config("quickstart")):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
    assert not isinstance(raised.value, TrainingError)


def test_a_lost_process_is_told_from_an_error_of_ones_own():
    with pytest.raises(LostContact), explained(RLSO, load_config("quickstart")):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4711")


def test_any_other_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes differ") as raised, explained(RLSO, load_config("quickstart")):
        raise RuntimeError("shapes differ")
    assert not isinstance(raised.value, TrainingError)
