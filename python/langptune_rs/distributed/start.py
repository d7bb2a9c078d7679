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

from langptune_rs.distributed.group import free_port, group_from_environment
from langptune_rs.errors import ConfigError, TrainingError

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed as deepspeed  # for others too, which would else import it before its accelerator is chosen
from deepspeed.utils import logger as deepspeed_logger

TIME_TO_MEET = timedelta(minutes=10)
"""How long the processes of a run may take to start: one that cannot is never heard of."""
PATIENCE = timedelta(days=7)
"""How long a process waits for the others in a collective: one may download data or write profiles for hours, and the
lifeline tells within seconds when one has ended."""


def start_distributed() -> None:
    """Join the process group that torchrun, SLURM or our launcher described, or make a group of one.

    Raises `ConfigError` when the description is not whole, or where there are fewer GPUs than processes, and
    `TrainingError` when one of the others does not come.
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
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
            deepspeed.init_distributed(dist_backend=backend, timeout=PATIENCE, verbose=False)


def _meet() -> tuple[dist.Store, int, int]:
    """The key-value store of the processes that the environment describes, this one's rank, and how many there are."""
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=TIME_TO_MEET))
    except dist.DistError as error:
        raise TrainingError(
            f"Rank {os.environ['RANK']} on {socket.gethostname()} did not meet all {os.environ['WORLD_SIZE']} "
            f"processes at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} within {TIME_TO_MEET} "
            f"({str(error).splitlines()[0].rstrip('.')}). Look for the error of one that has ended, and whether the "
            "machines reach each other."
        ) from error
    store.set_timeout(PATIENCE)
    return store, rank, size


def gpu_index(local_rank: int, num_gpus: int, *, one_each: bool) -> int:
    """The GPU of a process among those it sees. SLURM may show each task its own alone: `one_each`, then it is 0.

    Raises `ConfigError` when there is none left for it.
    """
    if one_each and num_gpus == 1:
        return 0
    if local_rank >= num_gpus:
        raise ConfigError(
            f"There is no GPU for process {local_rank} of {socket.gethostname()} (counted from 0): it sees {num_gpus}. "
            f"Start at most {num_gpus} processes on this machine."
        )
    return local_rank
