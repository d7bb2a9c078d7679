"""How many threads a process has, and how they wait."""

import os
import subprocess
import sys

import pytest

from langptune_rs.distributed.threads import SPINS, sleep_while_waiting, thread_counts


def test_the_core_has_as_many_threads_as_torch_unless_the_user_says_otherwise() -> None:
    assert thread_counts({}, 3) == {"OMP_NUM_THREADS": "3", "RAYON_NUM_THREADS": "3"}
    assert thread_counts({"OMP_NUM_THREADS": "5"}, 3) == {"OMP_NUM_THREADS": "5", "RAYON_NUM_THREADS": "5"}
    both = {"OMP_NUM_THREADS": "5", "RAYON_NUM_THREADS": "2"}
    assert thread_counts(both, 3) == both


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_has_set_is_kept(name: str) -> None:
    environment = {name: "7"}
    sleep_while_waiting(environment)
    assert environment == {name: "7"}


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's library of OpenMP on Linux")
@pytest.mark.parametrize(
    ("given", "shown"),
    [({}, f"GOMP_SPINCOUNT = '{SPINS}'"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY = 'ACTIVE'")],
)
def test_the_command_says_it_before_torch_reads_it(given: dict[str, str], shown: str) -> None:
    """The library prints what it has read when torch loads it."""
    code = "import sys; sys.argv = ['langptune', '--version']; import langptune_cli.app as app; "
    code += "app.end_process = lambda code: None; app.main(); import torch"
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | given | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown in done.stderr
