"""A run on several machines, started by DeepSpeed's launcher over ssh."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from langptune_rs.distributed.lifeline import AT_ONCE, INTERRUPTED
from langptune_rs.distributed.signals import forwarded_signals, handling
from langptune_rs.distributed.threads import thread_counts
from langptune_rs.errors import ConfigError
from langptune_rs.files import write_text

SECONDS_TO_REACH = 5
SECONDS_TO_END = 40.0
"""How long the processes of all machines may take to hear that they must end, and then the launcher to end them."""
EXAMPLE = "Each line names a machine and its GPUs, such as: gpu-node-1 slots=8"


def read_hostfile(path: Path) -> dict[str, int]:
    """How many processes each host runs, in the file's order, from lines `host slots=N`; `#` begins a comment.

    Raises `ConfigError` with the number of a line that cannot be read or names a host a second time.
    """
    if not path.is_file():
        raise ConfigError(f"There is no hostfile {path}. {EXAMPLE}")
    hosts: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        entry = re.fullmatch(r"([\w.:@-]+)\s+slots=([1-9]\d*)", text)
        if not entry:
            raise ConfigError(f"{path}, line {number}: {text!r} is not of the form `host slots=N`. {EXAMPLE}")
        host, slots = entry.groups()
        if host in hosts:
            raise ConfigError(f"{path}, line {number}: {host} is there twice. Give its slots in one line.")
        hosts[host] = int(slots)
    if not hosts:
        raise ConfigError(f"The hostfile {path} names no machine. {EXAMPLE}")
    return hosts


def is_here(host: str) -> bool:
    """Whether a hostfile's name is that of this machine."""
    return host in ("localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn())


def check_reachable(hosts: Sequence[str]) -> None:
    """Raise `ConfigError` unless ssh logs into every host without a password.

    All hosts are asked at once, which takes seconds; DeepSpeed's launcher would wait for one that does not answer.
    """
    away = [host for host in hosts if not is_here(host)]
    needed = ("ssh", "pdsh") if away or len(hosts) > 1 else ()
    if missing := [tool for tool in needed if not shutil.which(tool)]:
        raise ConfigError(
            f"Machines of a hostfile are started over {' and '.join(needed)}, but {missing[0]} is not installed here. "
            "Install it, or start the run with torchrun or srun on every machine."
        )
    with ThreadPoolExecutor(max_workers=max(1, len(away))) as threads:
        answers = dict(zip(away, threads.map(_answer, away), strict=True))
    if failed := {host: answer for host, answer in answers.items() if answer}:
        said = "; ".join(f"{host}: {answer}" for host, answer in failed.items())
        raise ConfigError(
            f"{len(failed)} of {len(hosts)} machines of the hostfile cannot be reached by ssh ({said}). "
            "`ssh HOST true` must work from here without a password."
        )


def _answer(host: str) -> str | None:
    """What ssh complains of when it logs into `host`; None when it works."""
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={SECONDS_TO_REACH}"]
    try:
        done = subprocess.run(
            ["ssh", *options, host, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * SECONDS_TO_REACH,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {2 * SECONDS_TO_REACH} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def deepspeed_command(path: Path, hosts: Mapping[str, int], module: Sequence[str], port: int) -> list[str]:
    """The command line of DeepSpeed's launcher that runs `module`, a module with its arguments, once for each slot.

    The launcher exports variables that begin with PYTHON or NCCL, and those in `~/.deepspeed_env`, to all machines.
    """
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(path), "--log_level", "error"]
    command += ["--no_ssh_check", "--no_local_rank", "--module", "--master_port", str(port)]
    if all(map(is_here, hosts)):
        command += ["--master_addr", "127.0.0.1"]
    elif len(hosts) == 1:
        command += ["--force_multi"]  # the launcher would start a single machine's processes here
    return [*command, *module]


def run_on_hosts(path: Path, module: Sequence[str], port: int, interrupt: Path) -> int:
    """Run `module` on the machines of the hostfile and return the exit code. Raises `ConfigError` before any start.

    The launcher does not pass Ctrl-C on: it ends the processes. So the first Ctrl-C or SIGTERM creates the file
    `interrupt`, which all machines see; the processes look for it, save and stop. A second one ends them at once.
    """
    hosts = read_hostfile(path)
    check_reachable(list(hosts))
    command = [*deepspeed_command(path, hosts, module, port), "--interrupt", str(interrupt)]
    environment = os.environ | thread_counts(os.environ, _threads(hosts))
    signals: list[int] = []
    with handling(forwarded_signals(), lambda signum, frame: signals.append(signum)):
        launcher = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            while (code := launcher.poll()) is None:
                if signal.SIGHUP in signals or len(signals) > 1:
                    _end(launcher, interrupt)
                    return INTERRUPTED
                if signals and not interrupt.exists():
                    print("The processes are asked to save and stop; press Ctrl-C again to end them.", file=sys.stderr)
                    interrupt.touch()
                time.sleep(0.1)
        except BaseException:
            _end(launcher, interrupt)
            raise
    if code < 0:
        return 128 - code
    # The launcher exits with -s for a process that signal s killed, which arrives here as 256 - s.
    return code if code < 192 else 128 + 256 - code


def _end(launcher: subprocess.Popen[bytes], interrupt: Path) -> None:
    """End the processes of all machines through the file, then by the launcher, then those of this machine."""
    with suppress(OSError):
        write_text(interrupt, AT_ONCE)
    for signum in (None, signal.SIGTERM, signal.SIGKILL):
        if signum and launcher.poll() is None:
            os.killpg(launcher.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            launcher.wait(SECONDS_TO_END)


def _threads(hosts: Mapping[str, int]) -> int:
    """CPU threads for each process, as if every machine had this one's cores."""
    return max(1, (os.cpu_count() or 1) // max(hosts.values()))
