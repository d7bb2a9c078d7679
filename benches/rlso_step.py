"""One RLSO step by three programs: the reference procedure, TRL's RLOO trainer and this package.

    python benches/rlso_step.py --source FOLDER

All start from the same model, sessions and reward, and do the work of one rollout batch: two profiles for each of 32
sessions, rewarded by the recommender, then four optimizer steps over them. Each runs in its own process, one after the
other, `--rounds` times; times are medians. Threads of "ours" wait as the command lets them. TRL comes with
benches/peers/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib import import_module

from peers.rlso_work import Settings

from langptune_rs.distributed.threads import sleep_while_waiting

PEERS = ("reference", "trl", "ours")
COLUMNS = (
    "seconds_per_step",
    "rollout_seconds",
    "update_seconds",
    "rollout_tokens_per_second",
    "update_tokens_per_second",
    "peak_memory_mib",
    "tokens_per_profile",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="ml-100k", help="logs as `langptune data prepare jsonl` reads them")
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--profiles", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--last-layers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--json", action="store_true", help="print only the numbers, as JSON")
    parser.add_argument("--in-process", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = Settings(
        options.source, options.sessions, options.profiles, options.max_tokens, options.last_layers, options.epochs
    )
    if options.in_process:
        program = import_module(f"peers.rlso_{options.in_process}")  # only TRL's own process needs TRL
        print(json.dumps(program.step(settings)))
        return
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in options.peers}
    for _ in range(options.rounds):
        for name in options.peers:
            print(f"running: {name}", file=sys.stderr)
            measured[name].append(_in_own_process(name))
    numbers = {
        column: {name: statistics.median(run[column] for run in runs) for name, runs in measured.items()}
        for column in COLUMNS
    }
    print(json.dumps(numbers, indent=2) if options.json else _table(numbers))


def _in_own_process(name: str) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--in-process", name]
    environment = dict(os.environ)
    if name == "ours":
        sleep_while_waiting(environment)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def _table(numbers: dict[str, dict[str, float]]) -> str:
    names = list(numbers["seconds_per_step"])
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for column, row in numbers.items():
        lines.append(f"| {column.replace('_', ' ')} | " + " | ".join(f"{row[name]:,.1f}" for name in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
