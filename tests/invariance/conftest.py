"""Runs of the real command on small models, each made once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.experiments.tiny import make_models, tiny_config, write_source

from langptune_rs.config import to_toml

ALWAYS = (
    "rlso.micro_batch_tokens=2500",
    "contrastive.micro_batch_tokens=400",
    "profile.max_tokens=96",
    "profile.temperature=4",
    "rlso.learning_rate=1e-4",
    "contrastive.learning_rate=1e-4",
)
"""Two micro-batches a step; profiles long and random enough that some of them end, so that their rewards differ; steps
that move weights a hundred times as far as rounding does."""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""Sums have one order then."""


@dataclass(frozen=True)
class Finished:
    """What a run left behind."""

    folder: Path
    exit_code: int
    stderr: str

    @property
    def losses(self) -> list[float]:
        """Every loss of the run in order, as written."""
        return [line[key] for line in self.lines for key in ("contrastive/loss", "rlso/loss") if key in line]

    @property
    def lines(self) -> list[dict]:
        """metrics.jsonl without the times."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "time/seconds"} for line in lines]

    def weights(self, model: str) -> dict:
        from safetensors.torch import load_file

        return load_file(next((self.folder / model).glob("*.safetensors")))


class Trainer:
    """Runs `langptune train` as a user does."""

    def __init__(self, folder: Path):
        self._folder = folder
        policy, embedder = make_models(folder)
        config = tiny_config(policy, embedder, write_source(folder / "source"), "LangPTune", {"samples": 0})
        self.recipe = folder / "tiny.toml"
        self.recipe.write_text(to_toml(config))
        self._done: dict[tuple, Finished] = {}

    def __call__(self, *overrides: str, nproc: int = 1, resume: Path | None = None) -> Finished:
        """A finished run with these overrides; the same call gives the same folder."""
        key = (*overrides, nproc, resume)
        if key not in self._done:
            with self.start(*overrides, nproc=nproc, resume=resume) as (process, folder):
                _, stderr = process.communicate(timeout=240)
            self._done[key] = Finished(folder, process.returncode, stderr)
        return self._done[key]

    def initial(self, model: str) -> dict:
        """The weights that a run starts with."""
        from safetensors.torch import load_file

        return load_file(next((self._folder / f"tiny-{model}").glob("*.safetensors")))

    def new_folder(self) -> Path:
        """A folder for the next run."""
        return self._folder / f"run-{len(list(self._folder.glob('run-*')))}"

    def command(self, folder: Path, *overrides: str) -> list[str]:
        """`langptune train` into a folder, as one process."""
        command = [str(Path(sys.executable).with_name("langptune")), "train", "--config", str(self.recipe)]
        settings = [argument for override in (*ALWAYS, *overrides) for argument in ("--set", override)]
        return [*command, "--output", str(folder), *settings]

    def start(self, *overrides: str, nproc: int = 1, resume: Path | None = None):
        from contextlib import contextmanager

        @contextmanager
        def running():
            folder = resume or self.new_folder()
            command = [*self.command(folder, *overrides), "--nproc", str(nproc), *(["--resume"] if resume else [])]
            process = subprocess.Popen(command, env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
            try:
                yield process, folder
            finally:
                process.kill()
                process.wait()

        return running()

    def stop_at(self, step: int, how: signal.Signals, *overrides: str, phase: str = "", nproc: int = 1) -> Finished:
        """Send a signal once `step`, or its validation, is in metrics.jsonl, and wait for the end."""
        logged = re.compile(rf'"step": {step}, "iteration": \d+, "phase": "{phase}')
        with self.start(*overrides, nproc=nproc) as (process, folder):
            metrics = folder / "metrics.jsonl"
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if metrics.is_file() and logged.search(metrics.read_text()):
                    break
                time.sleep(0.005)
            process.send_signal(how)
            _, stderr = process.communicate(timeout=120)
        return Finished(folder, process.returncode, stderr)


@pytest.fixture(scope="session")
def train(tmp_path_factory) -> Callable[..., Finished]:
    return Trainer(tmp_path_factory.mktemp("invariance"))
