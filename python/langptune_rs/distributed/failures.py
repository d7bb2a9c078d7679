"""Turns the libraries' errors about lost memory, GPUs or processes into the user's words."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist

from langptune_rs.config import RunConfig
from langptune_rs.distributed.collectives import rank, world_size
from langptune_rs.errors import TrainingError

LOADING = "loading the models"
WRITING = "writing profiles"
RANKING = "embedding the catalog and profiles"
CONTRASTIVE = "training the embedder"
RLSO = "training the policy"

EVALUATING = "evaluating the trained models"

HALVED = {
    WRITING: "profile.token_budget",
    EVALUATING: "profile.token_budget",
    CONTRASTIVE: "contrastive.micro_batch_tokens",
    RLSO: "rlso.micro_batch_tokens",
}
"""The recipe key that decides only how much memory a phase takes, and that can be halved."""


class LostContact(TrainingError):
    """A collective failed because another process is gone. The error to show is that process's own."""


class HasConfig(Protocol):
    """An object with a recipe."""

    config: RunConfig


P = ParamSpec("P")
R = TypeVar("R")
Owner = TypeVar("Owner", bound=HasConfig)


@contextmanager
def explained(phase: str, config: RunConfig) -> Iterator[None]:
    """Raise a `TrainingError` for what torch raises inside the block when memory, a GPU or a process is lost."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if message := explain(error, phase, config):
            raise (LostContact if _is_lost_contact(error) else TrainingError)(message) from error
        raise


def during(
    phase: str,
) -> Callable[[Callable[Concatenate[Owner, P], R]], Callable[Concatenate[Owner, P], R]]:
    """A decorator that puts `explained` around a method of an object that has a `config`."""

    def decorate(method: Callable[Concatenate[Owner, P], R]) -> Callable[Concatenate[Owner, P], R]:
        @functools.wraps(method)
        def explaining(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with explained(phase, self.config):
                return method(self, *args, **kwargs)

        return explaining

    return decorate


def explain(error: BaseException, phase: str, config: RunConfig) -> str | None:
    """What to tell the user about an error that torch raised during `phase`; None for an error of another kind."""
    here = f"Rank {rank()} of {world_size()} on {socket.gethostname()}"
    if _is_out_of_memory(error):
        return f"{here} ran out of memory while {phase} ({first_line(error)}). {remedies(phase, config)}"
    if _is_lost_contact(error):
        return f"{here} lost the other processes while {phase} ({first_line(error)}). {_RESUME}"
    if _is_lost_gpu(error):
        gpu = f"GPU {torch.cuda.current_device()}" if torch.cuda.is_available() else "its GPU"
        return (
            f"{here} lost {gpu} while {phase} ({first_line(error)}). Look at it with nvidia-smi and, for its Xid "
            f"number, dmesg. {_RESUME}"
        )
    return None


_RESUME = "Run again with --resume to go on from the last checkpoint."


def remedies(phase: str, config: RunConfig) -> str:
    """Sentences on what to set so that a phase takes less memory than with this recipe, the cheapest first."""
    values = config.model_dump()
    steps = []
    if key := HALVED.get(phase):
        section, name = key.split(".")
        now = values[section][name]
        if now > 1:
            steps.append(f"{key} = {now // 2} (now {now}), which changes no result and may change with --resume")
    trained = {CONTRASTIVE: "contrastive", RLSO: "rlso"}.get(phase)
    if trained and values[trained].get("gradient_checkpointing") is False:
        steps.append(f"{trained}.gradient_checkpointing = true, which takes about a third more time")
    engine = config.engine
    if world_size() > 1 and engine.zero_stage < 3:
        steps.append(f"for a new run engine.zero_stage = {max(engine.zero_stage, 1) + 1} (now {engine.zero_stage})")
    if engine.offload == "none":
        stage = "" if engine.zero_stage else "engine.zero_stage = 1 and "
        steps.append(
            f'for a new run {stage}engine.offload = "optimizer", which keeps the optimizer in the memory of the CPU'
        )
    elif engine.offload == "optimizer" and engine.zero_stage == 3:
        steps.append('for a new run engine.offload = "parameters"')
    if not steps:
        return "Use a smaller model, or a GPU with more memory; `langptune plan` says how much a recipe needs."
    return f"Set {'; or else '.join(steps)}. `langptune plan` says how much a recipe needs."


def ends_the_process(error: TrainingError) -> bool:
    """Whether an error of `explained` says that a GPU or another process is gone: nothing else can run here then."""
    return isinstance(error, LostContact) or (error.__cause__ is not None and _is_lost_gpu(error.__cause__))


def is_about_more_than_files(error: BaseException) -> bool:
    """Whether an error raised while files were written says that memory, a GPU or another process is gone."""
    return _is_out_of_memory(error) or _is_lost_contact(error) or _is_lost_gpu(error)


def _is_out_of_memory(error: BaseException) -> bool:
    said = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in said)


def _is_lost_contact(error: BaseException) -> bool:
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    text = str(error)
    return "gloo" in text or "by peer" in text or (isinstance(error, dist.DistBackendError) and "remote" in text)


def _is_lost_gpu(error: BaseException) -> bool:
    if "device-side assert" in str(error):  # a fault of the program
        return False
    return isinstance(error, torch.AcceleratorError | dist.DistBackendError) or "CUDA error" in str(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind when it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
