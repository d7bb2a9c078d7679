"""How long `explain`, `steer` and `recommend --watch` take, by an untrained embedder over the items of a data set.

    python benches/steering.py --data FOLDER

FOLDER is raw or prepared data; all items with one interaction are kept. `explain` and `steer` are called as a program
does, after loading, each time with texts that were not embedded before. The time of `--watch` is that from the moment
when the file has been replaced until the command has printed the new ranking as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from langptune_rs.config import load_config, to_toml
from langptune_rs.evaluation.tables import markdown_table
from langptune_rs.models.weights import embedder_folder
from langptune_rs.recommending.edits import Remove, Request
from langptune_rs.serving.service import ProfileService

WISHES = ("slow science fiction", "loud action", "old musicals", "black and white crime", "films about trains")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = run_with_an_embedder(Path(folder), options.data)
        service = ProfileService.open(run)
        service.recommend("anything", 1)  # loads the embedder, embeds the items
        rows = [
            ("explain, 5 sentences", *milliseconds(lambda n: service.explain(profile(n), n), options.rounds)),
            (
                "steer, remove one of 5, one request",
                *milliseconds(lambda n: service.steer(profile(n), Remove(2), Request(f"{n} horses")), options.rounds),
            ),
            ("recommend --watch, after a save", *watch(run, Path(folder) / "profile.txt", options.rounds)),
        ]
        print(f"{len(service.catalog):,} items, {service.run.config.embedder.model}\n")
    head = ("work", "median, ms", "longest of " + str(options.rounds))
    print(markdown_table(head, [(name, f"{median:.0f}", f"{longest:.0f}") for name, median, longest in rows]))


def run_with_an_embedder(folder: Path, data: str) -> Path:
    """A run folder with an untrained embedder and no policy."""
    run = folder / "run"
    run.mkdir()
    overrides = [f"data.source={data}", "data.min_interactions=1"]
    (run / "config.toml").write_text(to_toml(load_config("quickstart", overrides)))
    model = embedder_folder("all-minilm-l6-v2")
    assert isinstance(model, Path), "the embedder comes with a package"
    (run / "embedder").symlink_to(model.resolve())
    return run


def profile(number: int) -> str:
    """A profile of five sentences that no other number has."""
    return " ".join(f"They like {wish}, number {number}." for wish in WISHES)


def milliseconds(work: Callable[[int], object], rounds: int) -> tuple[float, float]:
    """Median and longest time of some calls."""
    took = []
    for number in range(rounds):
        start = time.perf_counter()
        work(number)
        took.append(1000 * (time.perf_counter() - start))
    return float(np.median(took)), max(took)


def watch(run: Path, file: Path, rounds: int) -> tuple[float, float]:
    """Median and longest time from a save to the new ranking."""
    arguments = ["recommend", run, "--profile", profile(0), "--watch", file, "--json"]
    command = [sys.executable, "-c", "from langptune_cli.app import main; main()", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()

        def save(number: int) -> None:
            saved = file.with_suffix(".new")
            saved.write_text(profile(number + 1))
            saved.replace(file)
            answer = json.loads(watching.stdout.readline())  # type: ignore[union-attr]
            assert answer["after"]["text"] == profile(number + 1), answer

        took = milliseconds(save, rounds)
        watching.terminate()
    return took


if __name__ == "__main__":
    main()
