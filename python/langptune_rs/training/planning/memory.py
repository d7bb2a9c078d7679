"""Memory that a recipe needs on each GPU, by part and ZeRO stage. This is arithmetic: nothing is loaded or measured.

Both engines stay in memory through the whole run, so the weights, gradients and optimizers of both models count in
every phase. The rest differs: profiles are written, and then one of the models trains. The steps on histories, where a
recipe has them, need no profiles, and those of the validation after them are counted.

With T trained weights of t bytes each (4, or 2 in bfloat16), F frozen weights of the same engine and U weights of a
model that does not train, c bytes each, and N processes, DeepSpeed 0.19 holds for an engine, in bytes:

| stage   | weights          | gradients   | optimizer |
|---------|------------------|-------------|-----------|
| 0, fp32 | tT + cF + cU     | 4T          | 8T        |
| 1       | tT + cF + cU     | (4 + t)T    | 12T/N     |
| 2       | tT + cF + cU     | 4T/N        | 12T/N     |
| 3       | (tT + cF)/N + cU | 4T/N + tB   | 12T/N     |

`engine.precision` decides c, and t of the embedder. `rlso.precision` decides t of the policy. AdamW's two moments take
8 bytes. The other 4 are float32 master weights, which stages 1 to 3 keep beside the weights even in float32. Stage 0 in
bfloat16 runs as stage 1. B is the number of gradients that ranks sum in one message, T or at most 50 million; stages 1
and 2 hold tB too, but only during a backward pass. U is never sharded, since no engine holds it. While profiles are
written, stage 3 gathers all weights beside its own share, and where t is not c there is a copy of the policy's trained
weights, cT. With a KL penalty each process also holds the trained weights of the reference policy, tT. Offload moves
optimizer and gradients, or also (tT + cF)/N of stage 3, to the memory of the CPU.

Activations are counted for each token of a micro-batch and each trained layer, as the layers of transformers keep them
for the backward pass without gradient checkpointing. With h the width, q and k the widths of all query and of all key
heads, and f that of the feed-forward network, they take t(3q + 2k + 4h + 4f) + 8h bytes with a gate and t(3q + 2k + 6h
+ 3f) without one. The attention kernel is taken to keep no (tokens, tokens) matrix. Gradient checkpointing keeps th for
each layer, and one layer in full. LoRA trains all layers and keeps the inputs of its matrices once more, at rank r:
7rt. Where t is not c, some rows of the output matrix at a time are there in float32. The logits of some rows of the
output at a time come on top, in float32 with their probabilities, and in bfloat16 too where that is what trains. The
embedder keeps one micro-batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from langptune_rs.config import RunConfig
from langptune_rs.models.log_probs import OUTPUTS, ROWS
from langptune_rs.models.shapes import Shape
from langptune_rs.training.engines import REDUCE_BUCKET

USABLE = 0.9
"""Share of a GPU's memory that is planned with; CUDA itself and fragmentation take the rest."""
PARTS = ("weights", "gradients", "optimizer", "activations", "kv_cache")


@dataclass(frozen=True)
class ModelWeights:
    """How many weights of one model its engine trains, holds frozen, and how many lie outside of any engine."""

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
        """Bytes of all parts."""
        return sum(getattr(self, part) for part in PARTS)


@dataclass(frozen=True)
class Option:
    """A ZeRO stage with its offload, and the memory that each phase takes."""

    zero_stage: int
    offload: str
    phases: tuple[Memory, ...]

    @property
    def worst(self) -> Memory:
        """The phase that takes most."""
        return max(self.phases, key=lambda phase: phase.total)

    def fits(self, memory: float) -> bool:
        """Whether every phase fits into GPUs of `memory` bytes."""
        return self.worst.total <= USABLE * memory


OPTIONS = ((0, "none"), (1, "none"), (2, "none"), (3, "none"), (2, "optimizer"), (3, "optimizer"), (3, "parameters"))
"""ZeRO stages with their offload, from the fastest to the one that takes least memory."""


def bytes_per_number(precision: str) -> int:
    """Bytes of a weight or an activation: 2 in bf16, 4 in fp32."""
    return 2 if precision == "bf16" else 4


def policy_weights(shape: Shape, config: RunConfig) -> ModelWeights:
    """The policy's weights by `policy.train`: its last layers train, or LoRA matrices on every layer."""
    policy = config.policy
    if not config.trains_policy:
        return ModelWeights(0, 0, shape.weights)
    if policy.train == "lora":
        return ModelWeights(policy.lora_rank * shape.layer_edges * shape.layers, shape.weights, 0)
    num_layers = min(policy.last_layers, shape.layers)
    trained = num_layers * shape.layer_weights + policy.train_final_norm * shape.width
    trained += policy.train_lm_head * shape.vocabulary * shape.width
    return ModelWeights(trained, shape.weights - trained, 0)


def embedder_weights(shape: Shape, config: RunConfig) -> ModelWeights:
    """The embedder's weights: all of them train, or none."""
    return ModelWeights(shape.weights, 0, 0) if config.trains_embedder else ModelWeights(0, 0, shape.weights)


def engine_memory(
    weights: ModelWeights, *, stage: int, offload: str, precision: str, trained_precision: str, num_processes: int
) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer of one engine on one GPU, by the table above."""
    c, t = bytes_per_number(precision), bytes_per_number(trained_precision)
    stage = max(stage, 1) if trained_precision == "bf16" else stage
    own = math.ceil(weights.trained / num_processes)
    whole = t * weights.trained + c * weights.frozen
    held = (whole if stage < 3 else math.ceil(whole / num_processes)) + c * weights.outside
    bucket = t * min(weights.trained, REDUCE_BUCKET)
    gradients = 4 * (weights.trained if stage < 2 else own) + (bucket if stage == 3 else 0)
    if stage == 1:
        gradients += t * weights.trained
    optimizer = 8 * weights.trained if stage == 0 else 12 * own
    if offload != "none":
        gradients, optimizer = bucket, 0
    if offload == "parameters":
        held = c * weights.outside
    return {"weights": held, "gradients": gradients, "optimizer": optimizer}


def layer_activation(shape: Shape, precision: str) -> int:
    """Bytes that one trained layer keeps for each token until the backward pass."""
    c = bytes_per_number(precision)
    q, k, h, f = shape.heads * shape.head_width, shape.kv_heads * shape.head_width, shape.width, shape.feed_forward
    if shape.gated:
        return c * (3 * q + 2 * k + 4 * h + 4 * f) + 8 * h
    return c * (3 * q + 2 * k + 6 * h + 3 * f)


def activations(shape: Shape, num_layers: int, num_tokens: int, precision: str, *, checkpointing: bool) -> int:
    """Bytes that the trained layers keep for a micro-batch of `num_tokens`."""
    if not checkpointing:
        return num_tokens * num_layers * layer_activation(shape, precision)
    return num_tokens * (num_layers * bytes_per_number(precision) * shape.width + layer_activation(shape, precision))


def kv_bytes_per_token(shape: Shape, precision: str) -> int:
    """Bytes of the keys and values of one token in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * bytes_per_number(precision)


def kv_cache(
    shape: Shape, num_prompts: int, prompt_tokens: int, num_samples: int, max_tokens: int, precision: str
) -> int:
    """Bytes of the cache of a batch: each prompt once, and `max_tokens` slots for each of its samples."""
    return num_prompts * (prompt_tokens + num_samples * max_tokens) * kv_bytes_per_token(shape, precision)


def prompts_at_once(config: RunConfig, prompt_tokens: int, num_samples: int, num_prompts: int) -> int:
    """How many prompts of `prompt_tokens` are written for together, by `profile.token_budget`; at least one."""
    tokens_per_prompt = prompt_tokens + num_samples * config.profile.max_tokens
    return max(1, min(num_prompts, config.profile.token_budget // tokens_per_prompt))


def prompt_tokens(config: RunConfig) -> int:
    """Tokens of the longest prompt: the history's limit and room for the instruction, since no data is read here."""
    return (config.data.max_history_tokens or 2048) + 128


def update_tokens(config: RunConfig) -> int:
    """Tokens of the policy in one forward pass of an update: whole sessions, each prompt once for its profiles."""
    session = prompt_tokens(config) + config.rlso.num_profiles * config.profile.max_tokens
    return max(config.rlso.micro_batch_tokens, session)


def embedder_tokens(config: RunConfig) -> int:
    """Tokens of the embedder in the global batch, profiles and items, each at the embedder's limit."""
    return 2 * config.contrastive.batch_size * config.embedder.max_tokens


def option(config: RunConfig, policy: Shape, embedder: Shape, num_processes: int, stage: int, offload: str) -> Option:
    """The memory that the recipe takes on each GPU with this ZeRO stage and offload."""
    precision = config.engine.precision
    c, t = bytes_per_number(precision), bytes_per_number(config.rlso.precision)
    both = (policy_weights(policy, config), embedder_weights(embedder, config))
    held = [
        engine_memory(
            weights,
            stage=stage,
            offload=offload,
            precision=precision,
            trained_precision=trained_precision,
            num_processes=num_processes,
        )
        for weights, trained_precision in zip(both, (config.rlso.precision, precision), strict=True)
    ]
    fixed = {part: sum(engine[part] for engine in held) for part in ("weights", "gradients", "optimizer")}
    if config.trains_policy and config.rlso.kl_penalty:
        fixed["weights"] += t * both[0].trained
    weights_while_writing = fixed["weights"] + (c * both[0].trained if c != t else 0)
    if stage == 3 and config.trains_policy:  # gathered for the whole rollout, beside this rank's share
        weights_while_writing += t * both[0].trained + c * both[0].frozen
    phases = []
    for phase, is_there, num_sessions, num_samples in (
        ("history", config.trains_on_histories, config.evaluation.validation_sessions, 1),
        ("contrastive", config.trains_on_profiles, config.contrastive.batch_size * config.contrastive.steps, 1),
        ("rlso", config.trains_policy, config.rlso.batch_size, config.rlso.num_profiles),
    ):
        if not is_there:
            continue
        num_prompts = prompts_at_once(
            config, prompt_tokens(config), num_samples, math.ceil(num_sessions / num_processes)
        )
        cache = kv_cache(policy, num_prompts, prompt_tokens(config), num_samples, config.profile.max_tokens, precision)
        logits = num_prompts * num_samples * policy.vocabulary * 12
        while_writing = Memory(phase, **{**fixed, "weights": weights_while_writing}, activations=logits, kv_cache=cache)
        if phase != "rlso":
            num_tokens = min(config.contrastive.micro_batch_tokens, math.ceil(embedder_tokens(config) / num_processes))
            kept = activations(embedder, embedder.layers, num_tokens, precision, checkpointing=False)
        else:
            kept = _policy_activations(config, policy)
        if stage in (1, 2):
            size, weights = (t, both[0]) if phase == "rlso" else (c, both[1])
            kept += size * min(weights.trained, REDUCE_BUCKET)
        while_training = Memory(phase, **fixed, activations=kept, kv_cache=0)
        phases.append(max(while_writing, while_training, key=lambda memory: memory.total))
    return Option(stage, offload, tuple(phases))


def _policy_activations(config: RunConfig, policy: Shape) -> int:
    precision = config.rlso.precision
    num_tokens = update_tokens(config)
    num_layers = policy.layers if config.policy.train == "lora" else min(config.policy.last_layers, policy.layers)
    kept = activations(policy, num_layers, num_tokens, precision, checkpointing=config.rlso.gradient_checkpointing)
    if config.policy.train == "lora":
        kept += num_tokens * num_layers * 7 * config.policy.lora_rank * bytes_per_number(precision)
    if precision != config.engine.precision:
        kept += bytes_per_number(precision) * min(OUTPUTS, policy.vocabulary) * policy.width
    return kept + min(ROWS, num_tokens) * policy.vocabulary * (8 if precision == "fp32" else 12)


def options(config: RunConfig, policy: Shape, embedder: Shape, num_processes: int) -> list[Option]:
    """Every ZeRO stage, and the offloads that are worth it, in the order of `OPTIONS`."""
    return [option(config, policy, embedder, num_processes, stage, offload) for stage, offload in OPTIONS]
