"""The real command and its processes, which start at once: they are forked from one that has imported the libraries.

An interpreter takes ten seconds to import torch, transformers and DeepSpeed, more than a tiny run takes to train.
What is started here runs the same functions as the installed command. Tests that are about the start itself (launchers,
`--nproc`, `--hostfile`) start interpreters.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["langptune_rs.experiments.run", "langptune_rs.experiments.profiles", "langptune_cli.app"]
)


class Forked:
    """A process with what `subprocess.Popen` offers; all that it says goes to `log`."""

    def __init__(self, work: Callable[[], object], environment: Mapping[str, str], log: Path):
        self._log = log
        self._process = _CONTEXT.Process(target=_run, args=(work, dict(environment), log))
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


def _run(work: Callable[[], object], environment: dict[str, str], log: Path) -> None:
    os.environ.update(environment)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    work()


class Command:
    """`langptune` with some arguments."""

    def __init__(self, *arguments: str):
        self._arguments = arguments

    def __call__(self) -> None:
        from langptune_cli.app import main

        sys.argv = ["langptune", *self._arguments]
        main()


class Rank:
    """What `langptune train --nproc N` runs in each process, after a `fault` if there is one."""

    def __init__(self, arguments: Sequence[str], fault: Callable[[], object] | None = None):
        self._arguments, self._fault = arguments, fault

    def __call__(self) -> None:
        from langptune_rs.distributed.group import end_process
        from langptune_rs.experiments.run import main

        if self._fault:
            self._fault()
        end_process(main(self._arguments))


def start_ranks(
    arguments: Sequence[str],
    log: Path,
    num_processes: int = 1,
    environment: Mapping[str, str] | None = None,
    fault: Callable[[], object] | None = None,
) -> list[Forked]:
    """The processes of a run, rank by rank; each calls `fault` before it works."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**(environment or {}), "WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    places = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]
    return [Forked(Rank(arguments, fault), place, log) for place in places]


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
