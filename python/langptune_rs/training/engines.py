"""DeepSpeed engines: one for the policy, one for the embedder, each with its own optimizer.

While one model trains, the other's engine is not called, so its weights stay bit-identical.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from langptune_rs.errors import ConfigError, TrainingError
from langptune_rs.models.quiet import quiet
from langptune_rs.training.collectives import world_size
from langptune_rs.training.config import EngineConfig
from langptune_rs.training.group import group_from_environment

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.utils import logger as deepspeed_logger

ADAM_BETAS = (0.9, 0.95)
ADAM_EPS = 1e-6


REDUCE_BUCKET = 50_000_000
"""Gradients that ranks sum in one message. DeepSpeed keeps a buffer of this many, of 500 million by default."""


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
        group = {**alone, "MASTER_PORT": str(_free_port())}
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
        with quiet():
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


def make_engine(module: nn.Module, learning_rate: float, weight_decay: float, config: EngineConfig):
    """A DeepSpeed engine around the trainable parameters of `module`, with AdamW (appendix C: decay 1e-6).

    Gradient accumulation is the caller's: any number of `backward` calls, then one `step`; gradients are averaged over
    ranks at the step, so each rank scales its loss by the world size over the global count. bfloat16 weights always
    have float32 masters and float32 gradient sums, which DeepSpeed offers from ZeRO stage 1 on: stage 0 in bfloat16
    runs as stage 1. What `config.offload` keeps in the memory of the CPU is stepped there, by torch's fused AdamW.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    offloads = config.offload != "none"
    optimizer = torch.optim.AdamW(
        parameters,
        lr=learning_rate,
        betas=ADAM_BETAS,
        eps=ADAM_EPS,
        weight_decay=weight_decay,
        fused=offloads or None,
    )
    bf16 = config.precision == "bf16"
    zero = {
        "stage": max(config.zero_stage, 1) if bf16 else config.zero_stage,
        "reduce_bucket_size": min(REDUCE_BUCKET, sum(p.numel() for p in parameters)),
    }
    cpu = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if offloads:
        zero["offload_optimizer"] = cpu
    if config.offload == "parameters":
        zero["offload_param"] = cpu
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.max_grad_norm or 0.0,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    with quiet():
        engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings)
    engine.eval()
    return engine


def set_learning_rate(engine, learning_rate: float) -> None:
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate


def optimizer_step(engine) -> float:
    """Apply the accumulated gradients; returns their global norm before clipping."""
    norm = None
    if engine.zero_optimization_stage() == 0:
        norm = _gradient_norm(engine)
    engine.step()
    return float(engine.get_global_grad_norm() if norm is None else norm)


def _gradient_norm(engine) -> torch.Tensor:
    """Norm of the averaged gradients where the engine's plain optimizer keeps none (ZeRO stage 0, float32)."""
    grads = [p.grad for p in engine.module.parameters() if p.grad is not None]
    if world_size() > 1:  # `engine.allreduce_gradients` does nothing outside `engine.step`, which averages equal ones
        for grad in grads:
            dist.all_reduce(grad)
            grad /= world_size()
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))


@contextmanager
def gathered(engine) -> Iterator[None]:
    """Whole parameters on every rank inside the block: gathered once under ZeRO-3, at no cost below it."""
    if engine.zero_optimization_stage() < 3:
        yield
        return
    offload = engine.optimizer.parameter_offload
    for parameter in engine.module.parameters():
        parameter.ds_active_sub_modules.clear()
    for hook in (*offload.forward_hooks, *offload.backward_hooks):
        hook.remove()
    offload.forward_hooks, offload.backward_hooks = [], []
    try:
        with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
            yield
    finally:
        offload._register_deepspeed_module(offload.module)
