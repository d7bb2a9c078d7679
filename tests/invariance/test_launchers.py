"""A run of two processes is the same, whoever starts them: this package, torchrun, DeepSpeed's launcher or SLURM."""

import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.invariance.conftest import ONE_THREAD, Finished
from tests.invariance.test_training import assert_same_weights

from langptune_rs.runs.folder import CHECKPOINTS, TRAINED

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


def finished(commands: list[list[str]], folder: Path, environments: list[dict[str, str]]) -> Finished:
    """The run that some commands make together."""
    started = [
        subprocess.Popen(command, env={**ONE_THREAD, **environment}, stderr=subprocess.PIPE, text=True)
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        said = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return Finished(folder, next((process.returncode for process in started if process.returncode), 0), "".join(said))


def assert_same_run(expected: Finished, run: Finished) -> None:
    assert run.exit_code == 0, run.stderr
    assert run.lines == expected.lines
    assert_same_weights(expected, run)
    assert (run.folder / "report.html").is_file()


def test_nproc(train):
    folder = train.new_folder()
    run = finished([[*train.command_line(folder), "--nproc", "2"]], folder, [{}])
    assert_same_run(train(nproc=2), run)


def test_torchrun(train):
    folder = train.new_folder()
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"]
    run = finished([[*torchrun, "--no-python", *train.command_line(folder)]], folder, [{}])
    assert_same_run(train(nproc=2), run)


def test_slurm(train):
    """The variables that srun sets, of two tasks on one machine."""
    folder = train.new_folder()
    step = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
    }
    tasks = [step | {"SLURM_PROCID": task, "SLURM_LOCALID": task} for task in ("0", "1")]
    assert_same_run(train(nproc=2), finished([train.command_line(folder)] * 2, folder, tasks))


def test_a_hostfile_of_this_machine(train, tmp_path):
    folder, hosts = train.new_folder(), tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    run = finished([[*train.command_line(folder), "--hostfile", str(hosts)]], folder, [{}])
    assert_same_run(train(nproc=2), run)


def test_a_hostfile_of_two_machines(train, tmp_path):
    """Both are this one: ssh answers for any host, and pdsh runs here what it should run there."""
    hosts, environment = two_machines(tmp_path)
    folder = train.new_folder()
    run = finished([[*train.command_line(folder), "--hostfile", str(hosts)]], folder, [environment])
    assert_same_run(train(nproc=2), run)


def test_ctrl_c_reaches_every_machine_of_a_hostfile(train, tmp_path):
    hosts, environment = two_machines(tmp_path)
    folder = train.new_folder()
    stopped = stopped_at([*train.command_line(folder), "--hostfile", str(hosts)], folder, environment, [signal.SIGINT])
    assert stopped.exit_code == 130, stopped.stderr
    assert "asked to save" in stopped.stderr
    assert list((folder / CHECKPOINTS).glob("step-*")), "no process has saved"
    assert not (folder / TRAINED).exists()
    assert_same_run(train(nproc=2), train(nproc=2, resume=folder))


def test_a_second_ctrl_c_ends_the_processes_of_a_hostfile_at_once(train, tmp_path):
    hosts, environment = two_machines(tmp_path)
    folder = train.new_folder()
    command = [*train.command_line(folder), "--hostfile", str(hosts)]
    stopped = stopped_at(command, folder, environment, [signal.SIGINT, signal.SIGTERM])
    assert stopped.exit_code == 130, stopped.stderr
    assert "Stopping after this step" not in stopped.stderr, "no process was asked to save"
    assert not (folder / TRAINED).exists()
    assert_same_run(train(nproc=2), train(nproc=2, resume=folder))


def test_sigterm_lets_processes_of_torchrun_save(train):
    folder = train.new_folder()
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"]
    stopped = stopped_at([*torchrun, "--no-python", *train.command_line(folder)], folder, {}, [signal.SIGTERM])
    assert "Stopping after this step" in stopped.stderr
    assert not (folder / TRAINED).exists()
    assert_same_run(train(nproc=2), train(nproc=2, resume=folder))


def stopped_at(
    command: list[str], folder: Path, environment: dict[str, str], signals: list[signal.Signals]
) -> Finished:
    """The run of a command that gets signals, all at once, when its first step is done."""
    process = subprocess.Popen(command, env={**ONE_THREAD, **environment}, stderr=subprocess.PIPE, text=True)
    metrics = folder / "metrics.jsonl"
    try:
        while process.poll() is None and not (metrics.is_file() and '"step": 1,' in metrics.read_text()):
            time.sleep(0.01)
        for signum in signals:
            process.send_signal(signum)
        said = process.communicate(timeout=60)[1]
    finally:
        process.send_signal(signal.SIGHUP)  # ends what the command has started, too
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()
    return Finished(folder, process.returncode, said)


def two_machines(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A hostfile, and the environment in which its machines are found."""
    hosts = tmp_path / "hosts"
    hosts.write_text("gpu-1 slots=1\ngpu-2 slots=1\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool, script in (("ssh", "echo 127.0.0.1"), ("pdsh", PDSH), ("pkill", "exit")):
        path = tools / tool
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return hosts, {"PATH": f"{tools}:{os.environ['PATH']}"}


PDSH = """
while [ "$1" != -w ]; do shift; done
shift 2
for node in 0 1; do
    sh -c "$(echo "$*" | sed "s/%n/$node/g")" &
    nodes="$nodes $!"
done
for node in $nodes; do wait $node || code=$?; done
exit ${code:-0}"""
"""`pdsh OPTIONS -w HOSTS COMMAND...`: a shell there reads the command, in which %n is the host's number."""
