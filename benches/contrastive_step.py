"""One contrastive step of 256 pairs by sentence-transformers' losses and by this package, on a CPU.

    python benches/contrastive_step.py [--source ml-100k] [--rounds 3]

All start from all-MiniLM-L6-v2 in float32, embed the same texts without dropout, take Eq. 7 at the same temperature and
step with torch's AdamW. Instead of a profile they read the texts of the items that its user chose before, truncated to
8 to 89 words, drawn uniformly. Tokenising is part of a step. Each program runs in its own process on two threads, one
after the other, `--rounds` times. Numbers are medians without the first step of a process.

- plain, cached: MultipleNegativesRankingLoss and CachedMultipleNegativesRankingLoss (micro-batches of 32 pairs)
- ours: as the recipes have it, with the default of contrastive.micro_batch_tokens
- ours-one-pass: the whole batch in one micro-batch, which needs no second forward pass
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}

import numpy as np
from numpy.typing import NDArray

BATCH, TEMPERATURE, LEARNING_RATE = 256, 0.1, 1e-5
Step = Callable[[list[str], list[str], NDArray[np.int64]], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="ml-100k", help="a data set, as `langptune data prepare` takes it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="measured steps of each process")
    parser.add_argument("--json", action="store_true", help="print only the numbers, as JSON")
    parser.add_argument("--in-process", choices=PROGRAMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        print(json.dumps(measured(PROGRAMS[options.in_process], options.source, options.steps)))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(options.rounds):
        for name in PROGRAMS:
            command = [sys.executable, *sys.argv, "--in-process", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, runs[name][-1], file=sys.stderr)
    losses = [run["first_loss"] for program in runs.values() for run in program]
    if max(losses) - min(losses) > 1e-3:
        sys.exit(f"The programs do not compute the same loss: {losses}")
    numbers = {
        column: {name: statistics.median(run[column] for run in program) for name, program in runs.items()}
        for column in ("samples_per_second", "peak_memory_mib")
    }
    print(json.dumps(numbers, indent=2) if options.json else table(numbers))


def table(numbers: dict[str, dict[str, float]]) -> str:
    """The numbers in Markdown, with each program's speed by that of `plain` and of `cached`."""
    speed, memory = numbers["samples_per_second"], numbers["peak_memory_mib"]
    lines = ["| | samples per second | by plain | by cached | peak memory, MiB |", "|---|---:|---:|---:|---:|"]
    for name, value in speed.items():
        ratios = (f"{value / speed[other]:.2f}" for other in ("plain", "cached"))
        lines.append(f"| {name} | {value:.1f} | {' | '.join(ratios)} | {memory[name]:,.0f} |")
    return "\n".join(lines)


def measured(make_step: Callable[[], Step], source: str, steps: int) -> dict[str, float]:
    """The numbers of one program, by `steps` steps after a first one."""
    batches = pairs(source, steps + 1)
    step = make_step()
    first_loss = step(*batches[0])
    started = time.perf_counter()
    for batch in batches[1:]:
        step(*batch)
    return {
        "first_loss": first_loss,
        "samples_per_second": steps * BATCH / (time.perf_counter() - started),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def pairs(source: str, num_batches: int) -> list[tuple[list[str], list[str], NDArray[np.int64]]]:
    """Batches of texts in place of profiles, item texts and targets.

    No target is in a batch twice, since the programs treat such pairs differently.
    """
    from langptune_rs.config.data import DataConfig
    from langptune_rs.config.embedder import EmbedderConfig
    from langptune_rs.config.policy import PolicyConfig
    from langptune_rs.data import open_source
    from langptune_rs.models.tokens import token_counters

    folder = Path(tempfile.gettempdir()) / "langptune-contrastive-step" / Path(source).name
    counters = token_counters(EmbedderConfig().model, PolicyConfig().model)
    dataset = open_source(DataConfig(source=source, windows="all"), folder, counters)
    sessions, texts = dataset.sessions.select("train"), list(dataset.catalog.texts)
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(num_batches):
        order = rng.permutation(len(sessions))
        rows = order[np.sort(np.unique(sessions.targets[order], return_index=True)[1])[:BATCH]]
        histories = (" ".join(texts[item] for item in sessions.histories[row]).split() for row in rows)
        profiles = [" ".join(words[: rng.integers(8, 90)]) for words in histories]
        targets = sessions.targets[rows]
        batches.append((profiles, [texts[item] for item in targets], targets))
    return batches


def sentence_transformers_step(cached: bool) -> Step:
    """A step by sentence-transformers, with its plain or its cached loss."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    from langptune_rs.models.weights import embedder_folder
    from langptune_rs.training.engines import ADAM_BETAS, ADAM_EPS

    model = SentenceTransformer(str(embedder_folder("all-minilm-l6-v2")), device="cpu").eval()
    name = "CachedMultipleNegativesRankingLoss" if cached else "MultipleNegativesRankingLoss"
    loss_of = getattr(losses, name)(model, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=ADAM_BETAS, eps=ADAM_EPS)

    def step(profiles: list[str], items: list[str], targets: NDArray[np.int64]) -> float:
        loss: torch.Tensor = loss_of([model.preprocess(profiles), model.preprocess(items)], torch.arange(len(items)))
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def our_step(micro_batch_tokens: int | None = None) -> Step:
    """A step by this package, with the default of `contrastive.micro_batch_tokens` or another."""
    import torch

    from langptune_rs.config.contrastive import ContrastiveConfig
    from langptune_rs.config.embedder import EmbedderConfig
    from langptune_rs.config.engine import EngineConfig
    from langptune_rs.distributed.start import start_distributed
    from langptune_rs.models.embedder import Embedder
    from langptune_rs.models.memory import keep_freed_memory
    from langptune_rs.training.contrastive_step import ContrastiveBatch, contrastive_step
    from langptune_rs.training.engines import make_engine

    keep_freed_memory()
    start_distributed()
    embedder = Embedder.load(EmbedderConfig())
    engine = make_engine(embedder.model, LEARNING_RATE, 1e-2, EngineConfig(precision="fp32"))
    config = ContrastiveConfig(temperature=TEMPERATURE)
    if micro_batch_tokens:
        config = config.model_copy(update={"micro_batch_tokens": micro_batch_tokens})

    def step(profiles: list[str], items: list[str], targets: NDArray[np.int64]) -> float:
        batch = ContrastiveBatch(profiles, items, torch.from_numpy(targets).long())
        values = contrastive_step(engine, embedder, batch, config, LEARNING_RATE)
        return values["contrastive/loss"]

    return step


PROGRAMS: dict[str, Callable[[], Step]] = {
    "plain": lambda: sentence_transformers_step(cached=False),
    "cached": lambda: sentence_transformers_step(cached=True),
    "ours": our_step,
    "ours-one-pass": lambda: our_step(micro_batch_tokens=10**6),
}


if __name__ == "__main__":
    main()
