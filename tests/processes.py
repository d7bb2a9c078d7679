"""The real command and its processes, which start at once: they are forked from one that has imported the libraries.

An interpreter takes ten seconds to import torch, transformers and DeepSpeed, more than a tiny run takes to train.
What is started here runs the same functions as the installed command. Tests that are about the start itself (launchers,
`--nproc`, `--hostfile`) start interpreters.
"""

import gc
import multiprocessing
import os
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from langptune_rs.distributed.group import end_process, free_port

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("langptune_rs.experiments.run", "langptune_rs.experiments.profiles", "langptune_cli.app"),
        # What is imported only when the first model, log, chart, optimizer or engine is made.
        *("sentence_transformers", "peft", "transformers.models.llama.modeling_llama"),
        *("transformers.models.bert.modeling_bert", "torch.utils.tensorboard", "matplotlib.backends.backend_svg"),
        *("torch._dynamo", "deepspeed.runtime.zero.muon.muon_optimizer"),
        "pytest",  # by the files of tests that define what is to be run
    ]
)


class Forked:
    """A process with what `subprocess.Popen` offers; all that it says goes to `log`, or what it prints to `out`."""

    def __init__(self, work: Callable[[], object], environment: Mapping[str, str], log: Path, out: Path | None = None):
        self._log = log
        self._process = _CONTEXT.Process(target=_run, args=(work, dict(environment), log, out or log))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            if self._process.exitcode is None:
                os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """As of a Popen whose stderr is a pipe: what was said, once the process has ended."""
        self.wait(timeout)
        return None, self._log.read_text()


def _run(work: Callable[[], object], environment: dict[str, str], log: Path, out: Path) -> None:
    gc.freeze()  # no collection looks again at what the libraries have made
    os.environ.update(environment)
    for path, descriptor in ((out, 1), (log, 2)):
        with path.open("a") as file:
            os.dup2(file.fileno(), descriptor)
    work()


def command(*arguments: str, folder: Path | None = None) -> Callable[[], object]:
    """The work of `langptune` with some arguments, in a working folder."""
    return partial(_command, arguments, folder)


def rank_of_run(*arguments: str, fault: Callable[[], object] | None = None) -> Callable[[], object]:
    """The work of each process of `langptune train --nproc N`, after a `fault` if there is one."""
    return partial(_rank, arguments, fault)


def start_ranks(
    work: Callable[[], object], log: Path, num_processes: int = 1, environment: Mapping[str, str] | None = None
) -> list[Forked]:
    """Processes that meet as the ranks of one group, each doing `work`."""
    place = {**(environment or {}), "WORLD_SIZE": str(num_processes)}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [Forked(work, place | {"RANK": str(r), "LOCAL_RANK": str(r)}, log) for r in range(num_processes)]


def _command(arguments: Sequence[str], folder: Path | None) -> None:
    from langptune_cli.app import main

    if folder:
        os.chdir(folder)
    sys.argv = ["langptune", *arguments]
    main()


def _rank(arguments: Sequence[str], fault: Callable[[], object] | None) -> None:
    from langptune_rs.experiments.run import main

    if fault:
        fault()
    end_process(main(arguments))


def kill_after(processes: Sequence[Forked], seconds: float, begun: Callable[[], bool]) -> bool:
    """Kill all of them `seconds` after `begun`; False if one had ended before, all of them without an error."""
    while not begun() and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.001)
    killed = any(process.poll() is None for process in processes)
    for process in processes:
        process.kill()
    codes = [process.wait() for process in processes]
    assert killed or codes == [0] * len(processes)
    return killed


def run_command(*arguments: str, folder: Path) -> str:
    """What `langptune` with these arguments prints, in a working folder; it must end without an error."""
    return _printed(command(*arguments, folder=folder), shlex.join(["langptune", *arguments]))


def run_script(script: Path, *arguments: str) -> str:
    """What a script with these arguments prints, run as a program; it must end without an error."""
    return _printed(partial(_script, script, arguments), shlex.join([str(script), *arguments]))


def _script(script: Path, arguments: Sequence[str]) -> None:
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


def _printed(work: Callable[[], object], name: str) -> str:
    with tempfile.TemporaryDirectory() as said:
        log, out = Path(said) / "err", Path(said) / "out"
        process = Forked(work, {}, log, out)
        try:
            code = process.wait(600)
        finally:
            process.kill()
        assert code == 0, f"{name}\n{log.read_text()}"
        return out.read_text()
