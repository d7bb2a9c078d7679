"""Runs on several machines: what a hostfile may say, and what is started from it."""

import base64
import json
import os
import stat
import subprocess
import time

import pytest

from langptune_rs.distributed import hostfile
from langptune_rs.distributed.hostfile import check_reachable, deepspeed_command, read_hostfile
from langptune_rs.errors import ConfigError


def test_hosts_are_read_in_order(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# ours\n\ngpu-2 slots=8\nuser@gpu-1.cluster   slots=4  # half\n")
    assert list(read_hostfile(path).items()) == [("gpu-2", 8), ("user@gpu-1.cluster", 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no machine"),
        ("# nothing\n", "names no machine"),
        ("gpu-1\n", "line 1: 'gpu-1' is not of the form"),
        ("gpu-1 slots=2\ngpu-2 slots=0\n", "line 2: 'gpu-2 slots=0'"),
        ("gpu-1 slots=two\n", "line 1"),
        ("gpu-1 slots=2\ngpu-1 slots=4\n", "line 2: gpu-1 is there twice"),
        ("$(reboot) slots=1\n", "line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(ConfigError, match="hosts") as raised:
        read_hostfile(path)
    assert message in str(raised.value)


def test_a_hostfile_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="There is no hostfile"):
        read_hostfile(tmp_path / "hosts")


def test_a_machine_that_does_not_answer_is_named_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setattr(hostfile, "SECONDS_TO_REACH", 2)
    pdsh = tmp_path / "pdsh"
    pdsh.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    started = time.monotonic()
    with pytest.raises(ConfigError, match="no-such-host.invalid"):
        check_reachable(["no-such-host.invalid"])
    assert time.monotonic() - started < 20


def test_this_machine_needs_no_ssh(monkeypatch):
    monkeypatch.setenv("PATH", "")
    check_reachable(["localhost"])
    with pytest.raises(ConfigError, match="pdsh"):
        check_reachable(["localhost", "gpu-1"])
    with pytest.raises(ConfigError, match="ssh is not installed here"):
        check_reachable(["gpu-1"])


def test_a_single_machine_that_is_not_this_one_does_the_work(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("gpu-1 slots=2\n")
    asked = asked_of_pdsh(tmp_path, hosts)
    assert asked[asked.index("-w") + 1] == "gpu-1"


def asked_of_pdsh(folder, hosts) -> list[str]:
    """What DeepSpeed's own launcher has pdsh do, by an ssh and a pdsh that only write down what they are asked."""
    for tool, answer in (("ssh", "echo 10.0.0.1"), ("pdsh", f'printf "%s\\n" "$@" > {folder}/asked')):
        script = folder / tool
        script.write_text(f"#!/bin/sh\n{answer}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    command = deepspeed_command(hosts, read_hostfile(hosts), MODULE, 12345)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    return (folder / "asked").read_text().splitlines()


MODULE = ["langptune_rs.experiments.run", "--config", "c.toml", "--output", "out"]


def test_deepspeed_starts_every_slot_of_every_machine(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("gpu-1 slots=2\ngpu-2 slots=3\n")
    asked = asked_of_pdsh(tmp_path, hosts)
    assert "gpu-1,gpu-2" in asked
    assert {"--master_addr=10.0.0.1", "--master_port=12345", "--module", "--no_local_rank"} <= set(asked)
    assert asked[-len(MODULE) :] == MODULE
    (world,) = (line.removeprefix("--world_info=") for line in asked if line.startswith("--world_info="))
    assert json.loads(base64.urlsafe_b64decode(world)) == {"gpu-1": [0, 1], "gpu-2": [0, 1, 2]}
