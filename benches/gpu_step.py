"""One RLSO step of a large policy on a GPU: where its time goes, and the share of the hardware's peak in each part.

    python benches/gpu_step.py --policy llama-3-8b --source FOLDER
    python benches/gpu_step.py --policy gemma-2b --source FOLDER
    python benches/gpu_step.py --policy smollm2-135m --sessions 4 --profiles 2 --max-tokens 16 --peak 0.4 50

llama-3-8b (its last four layers) and gemma-2b (LoRA of rank 1024) have the shape of these models with random weights,
which cost as much as trained ones when every profile takes all its tokens. smollm2-135m is the embedded model. The
defaults are the paper's batch: 64 sessions, two profiles of 512 tokens, four epochs. Prompts are the last 1,024 tokens
of the source's prompts. The first step warms up and is not counted. For a GPU that is not in `PEAKS` give its peak:
TFLOP/s of dense bfloat16 products, and GB/s of its memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from peers import rlso_ours
from peers.rlso_work import LEARNING_RATE, Settings, Work
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from langptune_rs.config.engine import EngineConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.start import start_distributed
from langptune_rs.evaluation import from_ranks
from langptune_rs.models.attention import PACKED
from langptune_rs.models.policy import Policy
from langptune_rs.models.shapes import KNOWN, Shape, policy_shape
from langptune_rs.models.weights import policy_folder
from langptune_rs.rollout import batches
from langptune_rs.rollout.reward import standardize, with_overlong
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.training.engines import Engine, make_engine
from langptune_rs.training.planning.memory import kv_bytes_per_token
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import pack_rollout
from langptune_rs.training.scorer import ProfileScorer

PEAKS = {"H100": (989, 3350), "H200": (989, 4800), "A100": (312, 2039), "RTX A6000": (155, 768)}
"""TFLOP/s and GB/s by NVIDIA's data sheets, for GPUs whose name contains the key."""
POLICIES = {
    "llama-3-8b": PolicyConfig(model="meta-llama/meta-llama-3-8b-instruct", train="last-layers", last_layers=4),
    "gemma-2b": PolicyConfig(model="google/gemma-2b-it", train="lora", lora_rank=1024, lora_alpha=2048),
    "smollm2-135m": PolicyConfig(train="last-layers", last_layers=4),
}
EMBEDDED = "smollm2-135m"
PROMPT_TOKENS = 1024
PARTS = ("prefill", "decode", "score", "update")
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Floor:
    """The least operations and bytes that a part of the step needs."""

    flops: float
    bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=POLICIES, default="llama-3-8b")
    parser.add_argument("--source", default="ml-100k", help="logs as `langptune data prepare jsonl` reads them")
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--profiles", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--micro-batch-tokens", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=1, help="steps that are measured")
    parser.add_argument("--peak", type=float, nargs=2, metavar=("TFLOPS", "GBS"), help="of a GPU that is not in PEAKS")
    parser.add_argument("--json", action="store_true", help="print only the numbers, as JSON")
    options = parser.parse_args()
    peak = options.peak or _known_peak()
    config = POLICIES[options.policy]
    start_distributed()
    policy = (
        Policy.load(config, torch.bfloat16, torch.float32)
        if options.policy == EMBEDDED
        else with_random_weights(config)
    )
    settings = Settings(
        options.source, options.sessions, options.profiles, options.max_tokens, config.last_layers, options.epochs
    )
    work = Work(settings, policy)
    work.prompts = [prompt[-PROMPT_TOKENS:] for prompt in work.prompts]
    rlso = RlsoConfig(
        batch_size=options.sessions,
        micro_batch_tokens=options.micro_batch_tokens,
        num_profiles=options.profiles,
        epochs=options.epochs,
        gradient_checkpointing=config.train == "lora",
    )
    scorer = ProfileScorer(policy, checkpointing=rlso.gradient_checkpointing)
    engine = make_engine(scorer, LEARNING_RATE, rlso.weight_decay, EngineConfig(precision="bf16"), "fp32")
    runs = [one_step(policy, engine, work, settings, rlso) for _ in range(options.steps + 1)][1:]
    seconds = {part: sum(run[0][part] for run in runs) / len(runs) for part in PARTS}
    numbers = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "policy": options.policy,
        "seconds_per_step": sum(seconds.values()),
        "tokens_per_profile": sum(map(len, runs[-1][1].tokens)) / len(runs[-1][1]),
        "peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
        "parts": shares(seconds, floors(policy_shape(config.model), config, work, runs[-1][1], settings), peak),
    }
    print(json.dumps(numbers, indent=2) if options.json else table(numbers))


def _known_peak() -> tuple[float, float]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    known = next((peak for part, peak in PEAKS.items() if part in name), None)
    return known or sys.exit(f"The peak of {name} is not in PEAKS; give it: --peak TFLOPS GBS.")


def with_random_weights(config: PolicyConfig) -> Policy:
    """A policy of a known shape, with the tokenizer of the embedded model."""
    kind, values = KNOWN[config.model]
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        shape = AutoConfig.for_model(kind, **values, max_position_embeddings=8192)
        from_config: Any = AutoModelForCausalLM.from_config
        model = from_config(shape, dtype=torch.bfloat16, attn_implementation=PACKED)
    tokenizer = AutoTokenizer.from_pretrained(policy_folder(PolicyConfig().model))
    return Policy.for_training(model, tokenizer, config, torch.float32)


def one_step(
    policy: Policy, engine: Engine, work: Work, settings: Settings, config: RlsoConfig
) -> tuple[dict[str, float], Profiles]:
    """The seconds of each part of a step, and its profiles."""
    seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        _wait()
        start = time.perf_counter()
        yield
        _wait()
        seconds[part] += time.perf_counter() - start

    batch = batches.FusedBatch if policy.is_fusable else batches.PackedBatch
    with _replaced(batch, "read", lambda read: _inside(lambda: timed("prefill"), read)), timed("decode"):
        profiles = rlso_ours.write(policy, work, settings)
    seconds["decode"] -= seconds["prefill"]
    with timed("score"):
        raw = with_overlong(from_ranks(work.ranks(profiles.texts), "ndcg"), profiles.finished, reward=0.0, penalty=None)
    rewards = standardize(torch.from_numpy(raw).view(-1, settings.num_profiles)).to(policy.model.device)
    with timed("update"):
        packed = pack_rollout(policy, work.prompts, profiles, settings.num_profiles, config.micro_batch_tokens)
        old_logps = None
        for _ in range(settings.epochs):
            old_logps, _ = policy_step(engine, packed, rewards, old_logps, config, LEARNING_RATE)
    return seconds, profiles


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _inside(context: Callable[[], AbstractContextManager[None]], work: Callable[P, R]) -> Callable[P, R]:
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with context():
            return work(*args, **kwargs)

    return inside


@contextmanager
def _replaced(owner: type, name: str, by: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, by(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def floors(shape: Shape, config: PolicyConfig, work: Work, profiles: Profiles, settings: Settings) -> dict[str, Floor]:
    """The operations of each part, and the bytes of the weights and the key-value cache that it reads."""
    prompts = [len(prompt) for prompt in work.prompts]
    written = [len(profile) for profile in profiles.tokens]
    prompt_of_profile = [prompt for prompt in prompts for _ in range(settings.num_profiles)]
    shared = batches.num_shared_tokens(work.prompts)
    read = sum(prompts) - shared * (len(prompts) - 1)
    layers = shape.layers * shape.layer_weights
    before_last = layers - shape.layer_weights  # the last layer needs almost none of a prompt's tokens
    head = shape.vocabulary * shape.width
    pair = 4 * shape.heads * shape.head_width  # operations for a query and a key in one layer
    reading = sum(n * n / 2 for n in prompts) * pair
    writing = sum(k * (n + k / 2) for n, k in zip(prompt_of_profile, written, strict=True)) * pair
    steps = max(written)
    cached = sum(sum(min(step, k) for k in written) for step in range(steps)) + steps * sum(prompts)
    trained = layers if config.train == "lora" else config.last_layers * shape.layer_weights
    share = trained / layers
    passes = 1 + (1 if config.train == "lora" else 2)  # forward, and backward at inputs and at trained matrices
    added = 6 * config.lora_rank * shape.layer_edges * shape.layers if config.train == "lora" else 0
    row = sum(prompts) + sum(written)
    least = trained * row - shape.layer_weights * sum(prompts)
    per_epoch = 2 * passes * least + added * row + 3 * share * (shape.layers - 1) * (reading + writing)
    transformer: Any = work.recommender.embedder.model[0]
    embedder = sum(p.numel() for p in transformer.model.encoder.parameters())
    texts = work.recommender.embedder.tokens(profiles.texts)
    return {
        "prefill": Floor(2 * before_last * read + (shape.layers - 1) * reading, 2 * layers),
        "decode": Floor(
            2 * (layers + head) * sum(written) + shape.layers * writing,
            2 * (layers + head) * steps + cached * kv_bytes_per_token(shape, "bf16"),
        ),
        "score": Floor(2 * embedder * sum(map(len, texts)), 4 * embedder),
        "update": Floor(
            settings.epochs * (per_epoch + 4 * head * sum(written)), settings.epochs * 2 * (trained + head) * 2
        ),
    }


def shares(
    seconds: dict[str, float], floors: dict[str, Floor], peak: tuple[float, float]
) -> dict[str, dict[str, float]]:
    """The seconds of each part, and the least it needs as a share of the peaks (TFLOP/s, GB/s)."""
    tflops, gbs = peak
    return {
        part: {
            "seconds": taken,
            "share_of_flops": floors[part].flops / taken / (tflops * 1e12),
            "share_of_bandwidth": floors[part].bytes / taken / (gbs * 1e9),
        }
        for part, taken in seconds.items()
    }


def table(numbers: dict[str, Any]) -> str:
    """The numbers in Markdown."""
    lines = [
        f"{numbers['policy']} on {numbers['device']}: {numbers['seconds_per_step']:.1f} s a step, "
        f"{numbers['tokens_per_profile']:.0f} tokens a profile",
        "",
        "| | seconds | of peak FLOP/s | of peak bandwidth |",
        "|---|---:|---:|---:|",
    ]
    for part, row in numbers["parts"].items():
        lines.append(
            f"| {part} | {row['seconds']:.2f} | {row['share_of_flops']:.1%} | {row['share_of_bandwidth']:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
