"""The plan of a recipe on given GPUs: its memory options, the time of its steps, and what to set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from langptune_rs.config import RunConfig
from langptune_rs.models.shapes import Shape
from langptune_rs.training.planning.memory import PARTS, USABLE, Option, options, prompt_tokens
from langptune_rs.training.planning.step_time import (
    PEAK_BANDWIDTH,
    PEAK_FP32_TFLOPS,
    PEAK_TFLOPS,
    SHARE_OF_PEAK,
    Step,
    step_times,
)


@dataclass(frozen=True)
class Plan:
    """What a recipe needs on `num_gpus` GPUs of `gpu_memory` bytes and these speeds: TFLOP/s in bf16 and fp32, GB/s."""

    num_gpus: int
    gpu_memory: float
    tflops: float
    fp32_tflops: float
    bandwidth: float
    options: list[Option]
    steps: list[Step]
    advice: str

    def as_json(self) -> dict[str, Any]:
        """The whole plan as plain values; memory in bytes."""
        return {
            "gpus": self.num_gpus,
            "gpu_memory": self.gpu_memory,
            "usable_share": USABLE,
            "share_of_peak": SHARE_OF_PEAK,
            "options": [
                {
                    "zero_stage": option.zero_stage,
                    "offload": option.offload,
                    "fits": option.fits(self.gpu_memory),
                    "phases": [{**asdict(phase), "total": phase.total} for phase in option.phases],
                }
                for option in self.options
            ],
            "steps": [asdict(step) for step in self.steps],
            "advice": self.advice,
        }

    def lines(self) -> list[str]:
        """The plan as a table for people, in GiB, with a sentence for each kind of step and the advice."""
        columns = (*PARTS, "total")
        lines = [
            f"GiB on each of {self.num_gpus} GPUs of {self.gpu_memory / 2**30:g}, of which {USABLE:.0%} are planned "
            "with",
            f"{'ZeRO, offload':<16}{'phase':<13}" + "".join(f"{column:>12}" for column in columns) + "  fits",
        ]
        for option in self.options:
            name = f"{option.zero_stage}" + (f", {option.offload}" if option.offload != "none" else "")
            for phase in option.phases:
                sizes = "".join(f"{getattr(phase, column) / 2**30:>12.2f}" for column in columns)
                fits = phase.total <= USABLE * self.gpu_memory
                lines.append(f"{name:<16}{phase.phase:<13}{sizes}  {'yes' if fits else 'no'}")
        lines += [
            f"A {step.phase} step writes {step.tokens_written:,} tokens, trains on {step.tokens_trained:,}: about "
            f"{step.seconds:.1f} s at {SHARE_OF_PEAK:.0%} of {self.tflops:g} TFLOP/s ({self.fp32_tflops:g} in float32) "
            f"and of {self.bandwidth:g} GB/s"
            for step in self.steps
        ]
        return [*lines, self.advice]


def make_plan(
    config: RunConfig,
    policy: Shape,
    embedder: Shape,
    num_gpus: int,
    gpu_memory: float,
    *,
    tflops: float = PEAK_TFLOPS,
    fp32_tflops: float = PEAK_FP32_TFLOPS,
    bandwidth: float = PEAK_BANDWIDTH,
) -> Plan:
    """The plan of a recipe whose models have these shapes, with one process for each GPU of `gpu_memory` bytes."""
    tried = options(config, policy, embedder, num_gpus)
    speeds = {"tflops": tflops, "fp32_tflops": fp32_tflops, "bandwidth": bandwidth}
    steps = step_times(config, policy, embedder, num_gpus, **speeds)
    return Plan(num_gpus, gpu_memory, tflops, fp32_tflops, bandwidth, tried, steps, advice(config, tried, gpu_memory))


def advice(config: RunConfig, tried: list[Option], gpu_memory: float) -> str:
    """Which stage to set on GPUs of `gpu_memory` bytes, or which key to change where no option fits."""
    if fitting := next((option for option in tried if option.fits(gpu_memory)), None):
        offload = f' and engine.offload = "{fitting.offload}"' if fitting.offload != "none" else ""
        return f"Set engine.zero_stage = {fitting.zero_stage}{offload}: the fastest that fits."
    worst = min(tried, key=lambda option: option.worst.total).worst
    part = max(PARTS, key=lambda part: getattr(worst, part))
    over = worst.total / (USABLE * gpu_memory)
    return (
        f"Nothing fits: {over:.1f} times the memory at least, most of it {part} in the {worst.phase} phase. "
        f"{remedy(config, worst.phase, part)}"
    )


def remedy(config: RunConfig, phase: str, part: str) -> str:
    """Which recipe key to set so that a part of a phase's memory gets smaller."""
    if part == "activations" and phase == "rlso" and not config.rlso.gradient_checkpointing:
        return "Set rlso.gradient_checkpointing = true."
    for key, now, least in _halved(config, phase, part):
        if now > least:
            instead = ", or a smaller policy.model" if key == "policy.last_layers" else ""
            return f"Set {key} = {now // 2}, half of now{instead}."
    return "Set a smaller policy.model, or use GPUs with more memory."


def _halved(config: RunConfig, phase: str, part: str) -> Iterator[tuple[str, int, int]]:
    """The keys that a part of a phase's memory grows with: name, value, and from where on less of it saves nothing."""
    num_profiles = config.rlso.num_profiles if phase == "rlso" else 1
    session = prompt_tokens(config) + num_profiles * config.profile.max_tokens  # is written and updated as a whole
    if part == "kv_cache":
        yield "profile.token_budget", config.profile.token_budget, session
        yield "profile.max_tokens", config.profile.max_tokens, 1
    elif part == "activations" and phase == "rlso":
        yield "rlso.micro_batch_tokens", config.rlso.micro_batch_tokens, session
        yield "profile.max_tokens", config.profile.max_tokens, 1
    elif part == "activations":
        yield "contrastive.micro_batch_tokens", config.contrastive.micro_batch_tokens, 1
    elif config.policy.train == "last-layers":
        yield "policy.last_layers", config.policy.last_layers, 1
    elif part != "weights":
        yield "policy.lora_rank", config.policy.lora_rank, 1
