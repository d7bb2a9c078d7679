"""DeepSpeed engines: one for the policy, one for the embedder, each with its own optimizer.

While one model trains, the other's engine is not called, so its weights stay bit-identical.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from langptune_rs.config.engine import EngineConfig
from langptune_rs.distributed.collectives import world_size
from langptune_rs.distributed.start import deepspeed
from langptune_rs.errors import TrainingError
from langptune_rs.models.quiet import quiet

ADAM_BETAS = (0.9, 0.95)
ADAM_EPS = 1e-6

REDUCE_BUCKET = 50_000_000
"""How many gradients ranks sum in one message. DeepSpeed keeps a buffer of this size, by default 500 million."""


class Engine(Protocol):
    """What training uses of a DeepSpeed engine."""

    module: nn.Module
    optimizer: Any

    def __call__(self, *inputs: Any) -> Any:
        """The module's forward pass."""

    def backward(self, loss: Tensor) -> Any:
        """Add the gradients of `loss` to those that are there."""

    def step(self) -> None:
        """Average the gradients over the ranks, apply them and clear them."""

    def zero_optimization_stage(self) -> int:
        """The ZeRO stage that the engine runs."""

    def get_global_grad_norm(self) -> float | Tensor | None:
        """The norm of the last step's gradients before clipping; None where the optimizer keeps none."""

    def save_checkpoint(self, folder: str, **options: Any) -> Any:
        """Write weights and optimizer state into `folder`; every rank calls this."""

    def load_checkpoint(self, folder: str, **options: Any) -> Any:
        """Take the state that `save_checkpoint` wrote; every rank calls this."""


def make_engine(
    module: nn.Module, learning_rate: float, weight_decay: float, config: EngineConfig, precision: str | None = None
) -> Engine:
    """A DeepSpeed engine around the trainable parameters of `module`, with AdamW (appendix C: decay 1e-6).

    The caller accumulates gradients: any number of `backward` calls, then one `step`. The step averages gradients over
    the ranks, so each rank scales its loss by the world size over the global count. `precision` is that of the
    trainable parameters, "fp32" or "bf16", by default `config.precision`; frozen ones keep their own. bfloat16 weights
    always have float32 masters and float32 gradient sums. DeepSpeed has those only from ZeRO stage 1 on, so stage 0 in
    bfloat16 runs as stage 1. What `config.offload` keeps in the memory of the CPU is stepped there by torch's fused
    AdamW.
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
    bf16 = (precision or config.precision) == "bf16"
    zero: dict[str, object] = {
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
    return cast(Engine, engine)


class OptimizerState:
    """An engine's optimizer, for a checkpoint that is one file and holds nothing but tensors and numbers.

    Of one process, at ZeRO stage 0 or 1. What DeepSpeed writes is a folder, and holds objects of its own. Weights in
    bfloat16 are rounded from float32 masters, which belong to the state.
    """

    def __init__(self, engine: Engine):
        optimizer = engine.optimizer
        self._masters: list[Tensor] = getattr(optimizer, "fp32_groups_flat_partition", [])
        self._adam = optimizer.optimizer if self._masters else optimizer

    def state_dict(self) -> dict[str, Any]:
        """The state of Adam, and the masters where there are any. Tensors are not copied."""
        return {"adam": self._adam.state_dict(), "masters": [master.detach() for master in self._masters]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back; the weights, rounded from the masters, are loaded by themselves.

        Raises `TrainingError` for the state of an engine in another precision.
        """
        if len(state["masters"]) != len(self._masters):
            was, would = ("bfloat16" if masters else "float32" for masters in (state["masters"], self._masters))
            raise TrainingError(
                f"This was trained in {was} so far, and would go on in {would}, as on another machine: go on where it "
                "began, or delete its folder to begin again."
            )
        self._adam.load_state_dict(state["adam"])
        for master, saved in zip(self._masters, state["masters"], strict=True):
            master.data.copy_(saved)


def set_learning_rate(engine: Engine, learning_rate: float) -> None:
    """Let the next step use this learning rate for all parameters."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate


def optimizer_step(engine: Engine) -> float:
    """Apply the accumulated gradients; returns their global norm before clipping."""
    norm: float | Tensor | None = None
    if engine.zero_optimization_stage() == 0:
        norm = _gradient_norm(engine)
    engine.step()
    norm = engine.get_global_grad_norm() if norm is None else norm
    assert norm is not None
    return float(norm)


def _gradient_norm(engine: Engine) -> Tensor:
    """Norm of the averaged gradients, which the plain optimizer of ZeRO stage 0 in float32 does not keep."""
    grads = [p.grad for p in engine.module.parameters() if p.grad is not None]
    if (
        world_size() > 1
    ):  # `engine.allreduce_gradients` works only inside `engine.step`; averaging there changes nothing
        for grad in grads:
            dist.all_reduce(grad)
            grad /= world_size()
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
    return norm


@contextmanager
def gathered(engine: Engine) -> Iterator[None]:
    """Hold whole parameters on every rank inside the block: ZeRO stage 3 gathers them once, lower stages do nothing."""
    if engine.zero_optimization_stage() < 3:
        yield
        return
    offload = engine.optimizer.parameter_offload
    for parameter in engine.module.parameters():
        cast(Any, parameter).ds_active_sub_modules.clear()  # an attribute that DeepSpeed adds
    for hook in (*offload.forward_hooks, *offload.backward_hooks):
        hook.remove()
    offload.forward_hooks, offload.backward_hooks = [], []
    try:
        with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
            yield
    finally:
        offload._register_deepspeed_module(offload.module)
