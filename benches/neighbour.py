"""What one busy process beside it costs the program: writing, an update, encoding, and ranking by the core.

    python benches/neighbour.py --source FOLDER

Each kind of work is done alone and beside a process that computes without a pause, `--rounds` times; times are medians.
A neighbour on one of two CPUs leaves three quarters of them to two threads that can be moved, so that work takes 4/3 of
its time, and half where one thread waits for the other. Threads wait as the command lets them; GOMP_SPINCOUNT=300000 in
the environment is the default without it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

from langptune_rs.distributed.threads import sleep_while_waiting

sleep_while_waiting(os.environ)

import numpy as np  # noqa: E402  # after the variables that OpenMP reads
import torch  # noqa: E402
from old_new import busy  # noqa: E402
from peers import rlso_ours  # noqa: E402
from peers.rlso_work import LEARNING_RATE, Settings, Work  # noqa: E402

from langptune_rs import ItemIndex  # noqa: E402
from langptune_rs.config.engine import EngineConfig  # noqa: E402
from langptune_rs.config.rlso import RlsoConfig  # noqa: E402
from langptune_rs.distributed.start import start_distributed  # noqa: E402
from langptune_rs.models.memory import keep_freed_memory  # noqa: E402
from langptune_rs.models.policy import Policy  # noqa: E402
from langptune_rs.training.engines import make_engine  # noqa: E402
from langptune_rs.training.policy_step import policy_step  # noqa: E402
from langptune_rs.training.rollout_batches import pack_rollout  # noqa: E402
from langptune_rs.training.scorer import ProfileScorer  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="ml-100k", help="logs as `langptune data prepare jsonl` reads them")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    work = works(Settings(options.source, options.sessions, 2, options.max_tokens, 4, 1))
    print("| work | alone, s | beside a busy process, s | ratio |\n|---|---:|---:|---:|")
    for name, do in work.items():
        do()
        alone = seconds(do, options.rounds)
        with busy(1):
            beside = seconds(do, options.rounds)
        print(f"| {name} | {alone:.2f} | {beside:.2f} | {beside / alone:.2f} |", flush=True)


def works(settings: Settings) -> dict[str, Callable[[], object]]:
    """Each kind of work, on the same models."""
    keep_freed_memory()
    start_distributed()
    policy = Policy.load(settings.policy, torch.bfloat16, torch.float32)
    engine = make_engine(ProfileScorer(policy), LEARNING_RATE, 0.0, EngineConfig(), "fp32")
    work = Work(settings, policy)
    work.prompts = [prompt[-300:] for prompt in work.prompts]
    profiles = rlso_ours.write(policy, work, settings)
    batches = pack_rollout(policy, work.prompts, profiles, 2, rlso_ours.MICRO_BATCH_TOKENS)
    rewards = torch.randn(settings.num_sessions, 2, generator=torch.Generator().manual_seed(0))
    config = RlsoConfig(batch_size=settings.num_sessions, num_profiles=2)
    texts = [f"Likes {number} films about the sea, and books on how they were made." for number in range(256)]
    generator = np.random.default_rng(0)
    items, users = (generator.standard_normal((n, 384), dtype=np.float32) for n in (100_000, 2_000))
    index = ItemIndex(items)
    targets = generator.integers(len(items), size=len(users))
    return {
        "writing": lambda: rlso_ours.write(policy, work, settings),
        "an update": lambda: policy_step(engine, batches, rewards, None, config, 0.0),
        "encoding": lambda: work.recommender.embedder.encode_profiles(texts),
        "ranking": lambda: index.rank(users, targets),
    }


def seconds(do: Callable[[], object], rounds: int) -> float:
    """Median seconds of some work."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        do()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
