"""Runs of the real command on small models, each made once."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from tests.experiments.tiny import make_models, tiny_config, write_source
from tests.processes import Forked, command, rank_of_run, start_ranks

from langptune_rs.config import load_config, to_toml
from langptune_rs.files import write_text

ALWAYS = (
    "rlso.micro_batch_tokens=2500",
    "contrastive.micro_batch_tokens=400",
    "profile.max_tokens=16",
    "profile.temperature=4",
    "rlso.learning_rate=1e-4",
    "contrastive.learning_rate=1e-4",
)
"""A few micro-batches a step; profiles so random that about half of them end, so that their rewards differ; steps that
move weights a hundred times as far as rounding does."""
ENDS = (1, *range(18, 258, 16))
"""Tokens that end a profile, of 259: the end of the text and fifteen letters, since profiles are to be short."""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""Sums have one order then."""


COSTS = ("time/seconds", "memory/peak_bytes")
"""What two equal runs may differ in."""


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
        """metrics.jsonl without times and memory."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key not in COSTS} for line in lines]

    def weights(self, model: str) -> dict:
        from safetensors.torch import load_file

        return load_file(next((self.folder / model).glob("*.safetensors")))


class Trainer:
    """Runs `langptune train` as a user does. Runs that several tests look at are made once, for all workers."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._num_runs = 0
        self.recipe = folder / "tiny.toml"
        self.policy_with_one_end = folder / "one-end"
        with FileLock(folder / "models.lock"):
            if not self.recipe.is_file():
                policy, embedder = make_models(folder)
                shutil.copytree(policy, self.policy_with_one_end)
                end_profiles_by(ENDS, policy)
                config = tiny_config(policy, embedder, write_source(folder / "source"), "LangPTune", {"samples": 0})
                write_text(self.recipe, to_toml(config))

    def __call__(self, *overrides: str, nproc: int = 1, resume: Path | None = None) -> Finished:
        """A finished run with these overrides; the same call gives the same folder."""
        if resume:
            with FileLock(self._folder / f"{resume.name}.lock"):
                return self._finish(resume, overrides, nproc, ["--resume"])
        key = hashlib.sha256(repr((overrides, nproc)).encode()).hexdigest()[:16]
        folder, ended = self._folder / f"run [{key}]", self._folder / f"ended-{key}.json"
        with FileLock(self._folder / f"{folder.name}.lock"):
            if not ended.is_file():
                run = self._finish(folder, overrides, nproc, [])
                write_text(ended, json.dumps([run.exit_code, run.stderr]))
        return Finished(folder, *json.loads(ended.read_text()))

    def _finish(self, folder: Path, overrides: Sequence[str], nproc: int, options: Sequence[str]) -> Finished:
        if nproc == 1:
            processes = [self._start(folder, overrides, options)]
        else:
            recipe = self._new_file("recipe").with_suffix(".toml")
            recipe.write_text(to_toml(load_config(self.recipe, [*ALWAYS, *overrides])))
            work = rank_of_run("--config", str(recipe), "--output", str(folder), *options)
            processes = start_ranks(work, self._new_file("log"), nproc, ONE_THREAD)
        try:
            said = [process.communicate(timeout=240)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        codes = [process.returncode for process in processes]
        return Finished(folder, next((code for code in codes if code), 0), said[-1])

    def initial(self, model: str) -> dict:
        """The weights that a run starts with."""
        from safetensors.torch import load_file

        return load_file(next((self._folder / f"tiny-{model}").glob("*.safetensors")))

    def new_folder(self) -> Path:
        """A folder for the next run."""
        return self._new_file("run")

    def command_line(self, folder: Path, *overrides: str) -> list[str]:
        """`langptune train` into a folder, as one process."""
        return [str(Path(sys.executable).with_name("langptune")), *self._arguments(folder, overrides)]

    @contextmanager
    def start(self, *overrides: str, nproc: int = 1, resume: Path | None = None):
        """The process of the command, and its folder; with `nproc` it starts others, each with an interpreter."""
        folder = resume or self.new_folder()
        options = ["--resume"] if resume else []
        if nproc == 1:
            process = self._start(folder, overrides, options)
        else:
            command = [*self.command_line(folder, *overrides), "--nproc", str(nproc), *options]
            process = subprocess.Popen(command, env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
        try:
            yield process, folder
        finally:
            process.kill()
            process.wait()

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

    def _start(self, folder: Path, overrides: Sequence[str], options: Sequence[str]) -> Forked:
        return Forked(command(*self._arguments(folder, overrides), *options), ONE_THREAD, self._new_file("log"))

    def _arguments(self, folder: Path, overrides: Sequence[str]) -> list[str]:
        settings = [argument for override in (*ALWAYS, *overrides) for argument in ("--set", override)]
        return ["train", "--config", str(self.recipe), "--output", str(folder), *settings]

    def _new_file(self, kind: str) -> Path:
        """A path that no worker has used."""
        self._num_runs += 1
        return self._folder / f"{kind}-{os.getpid()}-{self._num_runs}"


def end_profiles_by(tokens: Sequence[int], policy: Path) -> None:
    """Let any of some tokens end what a policy writes."""
    path = policy / "generation_config.json"
    config = json.loads(path.read_text()) | {"eos_token_id": list(tokens)}
    path.write_text(json.dumps(config))


@pytest.fixture(scope="session")
def train(tmp_path_factory) -> Trainer:
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "invariance"
    folder.mkdir(exist_ok=True)
    return Trainer(folder)
