"""Places of processes, from what torchrun and SLURM say."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.distributed.group import FIRST_PORT, NUM_PORTS, expand_hosts, group_from_environment, slurm_port
from langptune_rs.distributed.start import gpu_index
from langptune_rs.errors import ConfigError

SLURM = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[09-10]",
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
}


@pytest.mark.parametrize(
    ("nodelist", "hosts"),
    [
        ("one", ["one"]),
        ("node[01-03,07],other5", ["node01", "node02", "node03", "node07", "other5"]),
        ("r[1-2]n[08-10]", ["r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10"]),
        ("a[1-2]-ib,b-3.cluster", ["a1-ib", "a2-ib", "b-3.cluster"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
    ],
)
def test_node_lists_are_expanded_as_slurm_does(nodelist, hosts):
    assert expand_hosts(nodelist) == hosts


@given(st.lists(st.integers(0, 999), min_size=1, max_size=8))
def test_every_number_of_a_list_is_one_host(numbers):
    assert expand_hosts(f"n[{','.join(f'{n:03}' for n in numbers)}]") == [f"n{n:03}" for n in numbers]


@pytest.mark.parametrize("nodelist", ["", "n[1-", "n1,,n2", "n[a-b]", "n[]", "n 1"])
def test_what_is_no_node_list_is_refused(nodelist):
    with pytest.raises(ConfigError, match="node list"):
        expand_hosts(nodelist)


def test_a_slurm_step_gives_rank_size_and_master():
    port = str(slurm_port(4711, 2))
    expected = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu09", "MASTER_PORT": port}
    assert group_from_environment(SLURM) == expected


def test_torchrun_inside_slurm_is_torchruns():
    torchrun = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    assert group_from_environment(SLURM | torchrun) == torchrun


@pytest.mark.parametrize("environment", [{}, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, {"SLURM_STEP_NUM_TASKS": "1"}])
def test_a_process_alone_has_no_group(environment):
    assert group_from_environment(environment) == {}


@pytest.mark.parametrize("missing", ["SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"])
def test_half_a_place_is_an_error_that_names_what_is_missing(missing):
    with pytest.raises(ConfigError, match=missing):
        group_from_environment({name: value for name, value in SLURM.items() if name != missing})


@given(st.integers(0, 2**31), st.integers(0, 100))
def test_ports_stay_below_those_that_linux_hands_out(job, step):
    assert FIRST_PORT <= slurm_port(job, step) < FIRST_PORT + NUM_PORTS < 32768


def test_each_process_has_its_own_gpu():
    assert [gpu_index(rank, 2, one_each=False) for rank in range(2)] == [0, 1]
    assert gpu_index(3, 1, one_each=True) == 0
    with pytest.raises(ConfigError, match="Start at most 2 processes"):
        gpu_index(2, 2, one_each=False)


@pytest.mark.parametrize(
    ("start", "shuts_down"), [("", True), ("from langptune_rs.distributed.start import *; start_distributed()", False)]
)
def test_a_process_of_a_group_ends_with_its_code_and_output_and_no_shutdown(start, shuts_down):
    """Whatever happens while an interpreter shuts down, such as an abort of gloo's threads, is kept out of its end."""
    program = f"""
{start}
import atexit, os
from langptune_rs.distributed.group import end_process
atexit.register(os._exit, 70)
print("said", end="")
end_process(130)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == (70 if shuts_down else 130), ended.stderr
    assert shuts_down or ended.stdout == "said"


def test_a_process_that_others_do_not_come_to_says_so():
    program = """
import datetime
from langptune_rs.distributed import start
start.TIME_TO_MEET = datetime.timedelta(seconds=1)
start.start_distributed()
"""
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ | place
    )
    assert "TrainingError: Rank 0 on" in ended.stderr
    assert "did not meet all 2 processes" in ended.stderr
