"""What a recipe needs: memory for each GPU, by part and ZeRO stage, and the time of a step. Arithmetic alone.

Both engines stay in memory through the whole run, so the weights, gradients and optimizers of both models count in
either phase. What differs is the rest: profiles are written in both phases, and then one of the models trains.

With T trained weights, F frozen weights of the same engine, U weights of a model that does not train, c bytes each
(4, or 2 in bfloat16) and N processes, DeepSpeed 0.19 holds for an engine, in bytes:

| stage   | weights         | gradients   | optimizer |
|---------|-----------------|-------------|-----------|
| 0, fp32 | c(T + F + U)    | 4T          | 8T        |
| 1       | c(T + F + U)    | (4 + c)T    | 12T/N     |
| 2       | c(T + F + U)    | 4T/N        | 12T/N     |
| 3       | c(T + F)/N + cU | 4T/N + cB   | 12T/N     |

8 are AdamW's two moments, the other 4 the float32 master weights, which are not the weights themselves from stage 1 on
even in float32. Stage 0 in bfloat16 runs as stage 1. B, the gradients that
ranks sum in one message, is T or 50 million; stages 1 and 2 hold cB too, during a backward pass alone.
U is never cut: no engine holds it. While profiles are written, stage 3 gathers all weights; its own share
stays. With a KL penalty each process holds the trained weights of the reference policy too, cT. Offload moves optimizer
and gradients, or also c(T + F)/N of stage 3, to the memory of the CPU.

Activations, for each token of a micro-batch and each trained layer, as the layers of transformers keep them for the
backward pass without gradient checkpointing, with h the width, q and k the widths of all query and of all key heads, f
that of the feed-forward network: c(3q + 2k + 4h + 4f) + 8h bytes with a gate, c(3q + 2k + 6h + 3f) without one. The
attention kernel is taken to keep no (tokens, tokens) matrix. With gradient checkpointing: ch for each layer, and one
layer in full. LoRA trains all layers and keeps the inputs of its matrices once more, in rank r: 7rc. To that come the
logits of some rows of the output at a time, in float32 with their probabilities. The embedder keeps one micro-batch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from langptune_rs.config import RunConfig
from langptune_rs.models.log_probs import ROWS
from langptune_rs.models.shapes import Shape
from langptune_rs.training.engines import REDUCE_BUCKET

USABLE = 0.9
"""Share of a GPU's memory that is planned with: the rest is CUDA's own and what fragments."""
SHARE_OF_PEAK = 0.35
"""Of the GPU's arithmetic, in passes over many tokens; of its memory's speed, while profiles are written."""
PEAK_TFLOPS, BANDWIDTH_GB = 155.0, 768.0
"""bfloat16 arithmetic and memory speed of an RTX A6000, the paper's kind of card (48 GB), by its data sheet."""
PARTS = ("weights", "gradients", "optimizer", "activations", "kv_cache")


@dataclass(frozen=True)
class Trained:
    """Weights of one model: those that its engine trains, those beside them, or all of a model without an engine."""

    trained: int
    frozen: int
    outside: int


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the worst moment of a phase."""

    phase: str
    weights: int
    gradients: int
    optimizer: int
    activations: int
    kv_cache: int

    @property
    def total(self) -> int:
        return sum(getattr(self, part) for part in PARTS)


@dataclass(frozen=True)
class Option:
    """A ZeRO stage with its offload, and what either phase takes."""

    zero_stage: int
    offload: str
    phases: tuple[Memory, ...]

    def fits(self, memory: float) -> bool:
        """Whether every phase fits into GPUs of `memory` bytes."""
        return max(phase.total for phase in self.phases) <= USABLE * memory


OPTIONS = ((0, "none"), (1, "none"), (2, "none"), (3, "none"), (2, "optimizer"), (3, "optimizer"), (3, "parameters"))
"""From fast to small."""


def trained_policy(shape: Shape, config: RunConfig) -> Trained:
    """Of the policy, by `policy.train`: the last layers with the rest beside them, or LoRA on every layer."""
    policy = config.policy
    if not config.trains_policy:
        return Trained(0, 0, shape.weights)
    if policy.train == "lora":
        return Trained(policy.lora_rank * shape.layer_edges * shape.layers, shape.weights, 0)
    layers = min(policy.last_layers, shape.layers)
    trained = layers * shape.layer_weights + policy.train_final_norm * shape.width
    trained += policy.train_lm_head * shape.vocabulary * shape.width
    return Trained(trained, shape.weights - trained, 0)


def trained_embedder(shape: Shape, config: RunConfig) -> Trained:
    """Of the embedder: all of it, or nothing."""
    return Trained(shape.weights, 0, 0) if config.trains_embedder else Trained(0, 0, shape.weights)


def engine_memory(trained: Trained, *, stage: int, offload: str, precision: str, processes: int) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer of one engine on one GPU, by the table above."""
    c = 2 if precision == "bf16" else 4
    stage = max(stage, 1) if precision == "bf16" else stage
    own = math.ceil(trained.trained / processes)
    whole = c * (trained.trained + trained.frozen)
    weights = (whole if stage < 3 else math.ceil(whole / processes)) + c * trained.outside
    bucket = c * min(trained.trained, REDUCE_BUCKET)
    gradients = 4 * (trained.trained if stage < 2 else own) + (bucket if stage == 3 else 0)
    if stage == 1:
        gradients += c * trained.trained
    optimizer = 8 * trained.trained if stage == 0 else 12 * own
    if offload != "none":
        gradients, optimizer = bucket, 0
    if offload == "parameters":
        weights = c * trained.outside
    return {"weights": weights, "gradients": gradients, "optimizer": optimizer}


def layer_activation(shape: Shape, precision: str) -> int:
    """Bytes that one trained layer keeps for each token until the backward pass."""
    c = 2 if precision == "bf16" else 4
    q, k, h, f = shape.heads * shape.head_width, shape.kv_heads * shape.head_width, shape.width, shape.feed_forward
    if shape.gated:
        return c * (3 * q + 2 * k + 4 * h + 4 * f) + 8 * h
    return c * (3 * q + 2 * k + 6 * h + 3 * f)


def activations(shape: Shape, layers: int, tokens: int, precision: str, *, checkpointing: bool) -> int:
    """Bytes that `layers` trained layers keep for a micro-batch of `tokens`."""
    c = 2 if precision == "bf16" else 4
    if not checkpointing:
        return tokens * layers * layer_activation(shape, precision)
    return tokens * (layers * c * shape.width + layer_activation(shape, precision))


def kv_bytes_per_token(shape: Shape, precision: str) -> int:
    """Keys and values of one token in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * (2 if precision == "bf16" else 4)


def kv_cache(shape: Shape, prompts: int, prompt_tokens: int, samples: int, max_tokens: int, precision: str) -> int:
    """Bytes of a batch that is being written: each prompt once, and `max_tokens` slots for each of its samples."""
    return prompts * (prompt_tokens + samples * max_tokens) * kv_bytes_per_token(shape, precision)


def prompts_at_once(config: RunConfig, prompt_tokens: int, samples: int, prompts: int) -> int:
    """How many prompts of `prompt_tokens` are written for together, by `profile.token_budget`; at least one."""
    each = prompt_tokens + samples * config.profile.max_tokens
    return max(1, min(prompts, config.profile.token_budget // each))


def prompt_tokens(config: RunConfig) -> int:
    """The longest history of the data set with room for the instruction, since no data is read here."""
    return (config.data.max_history_tokens or 2048) + 128


def update_tokens(config: RunConfig) -> int:
    """Tokens of the policy in one forward pass of an update: whole sessions, each prompt once for its profiles."""
    session = prompt_tokens(config) + config.rlso.num_profiles * config.profile.max_tokens
    return max(config.rlso.micro_batch_tokens, session)


def embedder_tokens(config: RunConfig) -> int:
    """Tokens of the embedder in the global batch, profiles and items, each of the most it may have."""
    return 2 * config.contrastive.batch_size * config.embedder.max_tokens


def option(config: RunConfig, policy: Shape, embedder: Shape, processes: int, stage: int, offload: str) -> Option:
    """What the recipe takes on each GPU with this ZeRO stage and offload."""
    precision = config.engine.precision
    c = 2 if precision == "bf16" else 4
    both = (trained_policy(policy, config), trained_embedder(embedder, config))
    held = [engine_memory(t, stage=stage, offload=offload, precision=precision, processes=processes) for t in both]
    fixed = {part: sum(engine[part] for engine in held) for part in ("weights", "gradients", "optimizer")}
    if config.trains_policy and config.rlso.kl_penalty:
        fixed["weights"] += c * both[0].trained
    writing = fixed["weights"]
    if stage == 3 and config.trains_policy:  # gathered for the whole rollout, beside this rank's share
        writing += c * (both[0].trained + both[0].frozen)
    phases = []
    for phase, batch, samples in (
        ("contrastive", config.contrastive.batch_size * config.contrastive.steps, 1),
        ("rlso", config.rlso.batch_size, config.rlso.num_profiles),
    ):
        if not (config.trains_embedder if phase == "contrastive" else config.trains_policy):
            continue
        prompts = prompts_at_once(config, prompt_tokens(config), samples, math.ceil(batch / processes))
        cache = kv_cache(policy, prompts, prompt_tokens(config), samples, config.profile.max_tokens, precision)
        logits = prompts * samples * policy.vocabulary * 12
        while_writing = Memory(phase, **{**fixed, "weights": writing}, activations=logits, kv_cache=cache)
        if phase == "contrastive":
            tokens = min(config.contrastive.micro_batch_tokens, math.ceil(embedder_tokens(config) / processes))
            kept = activations(embedder, embedder.layers, tokens, precision, checkpointing=False)
        else:
            kept = _policy_activations(config, policy, precision)
        if stage in (1, 2):
            kept += c * min(both[phase == "contrastive"].trained, REDUCE_BUCKET)
        while_training = Memory(phase, **fixed, activations=kept, kv_cache=0)
        phases.append(max(while_writing, while_training, key=lambda memory: memory.total))
    return Option(stage, offload, tuple(phases))


def _policy_activations(config: RunConfig, policy: Shape, precision: str) -> int:
    tokens, c = update_tokens(config), 2 if precision == "bf16" else 4
    layers = policy.layers if config.policy.train == "lora" else min(config.policy.last_layers, policy.layers)
    kept = activations(policy, layers, tokens, precision, checkpointing=config.rlso.gradient_checkpointing)
    if config.policy.train == "lora":
        kept += tokens * layers * 7 * config.policy.lora_rank * c
    return kept + min(ROWS, tokens) * policy.vocabulary * 12


def options(config: RunConfig, policy: Shape, embedder: Shape, processes: int) -> list[Option]:
    """Every ZeRO stage, and the offloads that are worth it, in the order in which they would be tried."""
    return [option(config, policy, embedder, processes, stage, offload) for stage, offload in OPTIONS]


@dataclass(frozen=True)
class Step:
    """The work of one optimizer step over the global batch."""

    phase: str
    tokens_written: int
    tokens_trained: int
    seconds: float


def steps(
    config: RunConfig,
    policy: Shape,
    embedder: Shape,
    processes: int,
    *,
    tflops: float = PEAK_TFLOPS,
    bandwidth: float = BANDWIDTH_GB,
) -> list[Step]:
    """Tokens and estimated seconds of a step in either phase, when every profile takes all its tokens.

    A token costs 2 operations for each weight it passes forward and 4 more backward; a written one 2 for each weight
    of the output matrix and 2 for its gradient, twice as many where that trains. A contrastive batch beyond one
    micro-batch is passed forward twice. Writing reads the weights and the key-value cache once for each token of a
    batch. Both at `SHARE_OF_PEAK` of `tflops` and of `bandwidth` (GB/s).
    """
    flops, speed = tflops * 1e12 * SHARE_OF_PEAK, bandwidth * 1e9 * SHARE_OF_PEAK
    prompt, limit, precision = prompt_tokens(config), config.profile.max_tokens, config.engine.precision

    def seconds_to_write(sessions: int, samples: int) -> float:
        mine = math.ceil(sessions / processes)
        together = prompts_at_once(config, prompt, samples, mine)
        cache = kv_cache(policy, together, prompt, samples, limit, precision)
        read = limit * (policy.weights * (2 if precision == "bf16" else 4) + cache) * math.ceil(mine / together)
        return read / speed + 2 * policy.weights * mine * prompt / flops

    result = []
    if config.trains_embedder:
        batch = config.contrastive.batch_size
        trained = embedder_tokens(config)
        passes = 6 if math.ceil(trained / processes) <= config.contrastive.micro_batch_tokens else 8
        seconds = seconds_to_write(batch, 1) + passes * embedder.weights * trained / processes / flops
        result.append(Step("contrastive", batch * limit, trained, seconds))
    if config.trains_policy:
        rlso, parts = config.rlso, trained_policy(policy, config)
        written = rlso.batch_size * rlso.num_profiles * limit
        tokens = rlso.batch_size * prompt + written
        backward = 4 if config.policy.train == "last-layers" else 2
        above = parts.frozen if config.policy.train == "lora" else parts.trained
        update = (2 + backward) * (above + parts.trained * (config.policy.train == "lora"))
        output = (8 if config.policy.train_lm_head else 4) * policy.vocabulary * policy.width
        work = (update * tokens + output * written) / processes
        once = seconds_to_write(rlso.batch_size, rlso.num_profiles)
        result.append(Step("rlso", written // rlso.epochs, tokens, once / rlso.epochs + work / flops))
    return result


def advice(config: RunConfig, policy: Shape, embedder: Shape, processes: int, memory: float) -> str:
    """Which stage to set, or which keys to change where none fits."""
    tried = options(config, policy, embedder, processes)
    if fitting := next((o for o in tried if o.fits(memory)), None):
        offload = f' and engine.offload = "{fitting.offload}"' if fitting.offload != "none" else ""
        return f"Set engine.zero_stage = {fitting.zero_stage}{offload}: the fastest that fits."
    smallest = min(tried, key=lambda o: max(phase.total for phase in o.phases))
    worst = max(smallest.phases, key=lambda phase: phase.total)
    part = max(PARTS, key=lambda part: getattr(worst, part))
    changed = lower(config, worst.phase, part)
    over = worst.total / (USABLE * memory)
    return (
        f"Nothing fits: {over:.1f} times the memory at least, most of it {part} in the {worst.phase} phase. {changed}"
    )


def lower(config: RunConfig, phase: str, part: str) -> str:
    """Which recipe key makes a part smaller."""
    if part == "kv_cache":
        return f"Set profile.token_budget = {config.profile.token_budget // 2}, half of now."
    if part == "activations":
        now = getattr(config, phase).micro_batch_tokens
        if phase == "rlso" and now <= update_tokens(config) and not config.rlso.gradient_checkpointing:
            return "Set rlso.gradient_checkpointing = true."
        return f"Set {phase}.micro_batch_tokens = {now // 2}, half of now."
    if config.policy.train == "last-layers" and config.policy.last_layers > 1:
        return f"Set policy.last_layers = {config.policy.last_layers // 2}, half of now, or a smaller policy.model."
    if config.policy.train == "lora" and part != "weights":
        return f"Set policy.lora_rank = {config.policy.lora_rank // 2}, half of now."
    return "Set a smaller policy.model, or use GPUs with more memory."


def as_json(config: RunConfig, policy: Shape, embedder: Shape, processes: int, memory: float, **speed: float) -> dict:
    """The whole plan as plain values; memory in bytes."""
    tried = options(config, policy, embedder, processes)
    return {
        "gpus": processes,
        "gpu_memory": memory,
        "usable_share": USABLE,
        "share_of_peak": SHARE_OF_PEAK,
        "options": [
            {
                "zero_stage": o.zero_stage,
                "offload": o.offload,
                "fits": o.fits(memory),
                "phases": [{**asdict(phase), "total": phase.total} for phase in o.phases],
            }
            for o in tried
        ],
        "steps": [asdict(step) for step in steps(config, policy, embedder, processes, **speed)],
        "advice": advice(config, policy, embedder, processes, memory),
    }
