"""How the processes of a run meet."""

from __future__ import annotations

import io
import logging
import os
import socket
from contextlib import redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from langptune_rs.distributed.group import free_port, group_from_environment
from langptune_rs.errors import ConfigError, TrainingError

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed as deepspeed  # others import it from here, after its accelerator was chosen
from deepspeed.utils import logger as deepspeed_logger

TIME_TO_MEET = timedelta(minutes=10)
"""How long the processes of a run may take to start; one that cannot start sends no word."""
COLLECTIVE_TIMEOUT = timedelta(days=7)
"""How long a process waits in a collective. Another may download data or write profiles for hours; when one has ended,
the lifeline tells within seconds."""


def start_distributed() -> None:
    """Join the process group that torchrun, SLURM or our launcher describes, or make a group of one.

    Raises `ConfigError` when the description is incomplete or there are fewer GPUs than processes, and `TrainingError`
    when another process does not join in time.
    """
    deepspeed_logger.setLevel(logging.ERROR)
    group = group_from_environment(os.environ)
    if not group:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        group = {**alone, "MASTER_PORT": str(free_port())}
    if torch.cuda.is_available():
        one_each = "RANK" not in os.environ and "SLURM_LOCALID" in os.environ
        gpu = gpu_index(int(group["LOCAL_RANK"]), torch.cuda.device_count(), one_each=one_each)
        group["LOCAL_RANK"] = str(gpu)
        torch.cuda.set_device(gpu)
    os.environ.update(group)
    if not dist.is_initialized():
        store, rank, size = _meet()
        # DeepSpeed's shared-memory operator would be compiled on first use; gloo does the same without a C++ compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        with redirect_stdout(io.StringIO()):
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
            deepspeed.init_distributed(dist_backend=backend, timeout=COLLECTIVE_TIMEOUT, verbose=False)


def _meet() -> tuple[Store, int, int]:
    """The key-value store of the process group that the environment describes, this process's rank, and the size."""
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIME_TO_MEET))
    except dist.DistError as error:
        raise TrainingError(
            f"Rank {os.environ['RANK']} on {socket.gethostname()} did not meet all {os.environ['WORLD_SIZE']} "
            f"processes at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} within {TIME_TO_MEET} "
            f"({str(error).splitlines()[0].rstrip('.')}). Look for the error of one that has ended, and whether the "
            "machines reach each other."
        ) from error
    store.set_timeout(COLLECTIVE_TIMEOUT)
    return store, rank, size


def gpu_index(local_rank: int, num_gpus: int, *, one_each: bool) -> int:
    """The index of a process's GPU among those it sees. With `one_each` SLURM may show a task only its own, at index 0.

    Raises `ConfigError` when no GPU is left for the process.
    """
    if one_each and num_gpus == 1:
        return 0
    if local_rank >= num_gpus:
        raise ConfigError(
            f"There is no GPU for process {local_rank} of {socket.gethostname()} (counted from 0): it sees {num_gpus}. "
            f"Start at most {num_gpus} processes on this machine."
        )
    return local_rank
