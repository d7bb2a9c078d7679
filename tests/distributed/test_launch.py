"""Several processes on one machine: their places, their exit codes, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from langptune_rs.distributed import launch
from langptune_rs.distributed.launch import run_processes

RANK = "import os, sys, time; rank = int(os.environ['RANK']); "


def python(code: str) -> list[str]:
    return [sys.executable, "-c", RANK + code]


def test_every_process_is_told_its_place(tmp_path):
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    code = f"import json; open(f'{tmp_path}/{{rank}}', 'w').write(json.dumps([os.environ[n] for n in {names}]))"
    assert run_processes(python(code), 3) == 0
    places = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [place[:4] for place in places] == [[str(rank), str(rank), "3", "3"] for rank in range(3)]
    assert len({tuple(place[4:]) for place in places}) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(2 if rank == 1 else 0)", 2),
        ("sys.exit(130)", 130),
        ("os.kill(os.getpid(), 9) if rank == 0 else None", 137),
    ],
)
def test_the_first_exit_code_that_is_not_zero_is_passed_on(code, expected):
    assert run_processes(python(code), 2) == expected


def test_a_process_that_waits_in_vain_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "SECONDS_TO_FOLLOW", 0.5)
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(str(os.getpid())); sys.exit(2) if rank == 0 else time.sleep(600)"
    started = time.monotonic()
    assert run_processes(python(code), 2) == 2
    assert time.monotonic() - started < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "1").read_text()), 0)


def test_ctrl_c_reaches_every_process_exactly_once(tmp_path):
    worker = (
        "import signal; presses = []; signal.signal(signal.SIGINT, lambda *_: presses.append(1)); "
        f"open(f'{tmp_path}/ready{{rank}}', 'w').close()\n"
        "while not presses: time.sleep(0.05)\n"
        f"time.sleep(0.5); open(f'{tmp_path}/presses{{rank}}', 'w').write(str(len(presses))); sys.exit(130)"
    )
    imports = "import sys; from langptune_rs.distributed.launch import run_processes; "
    code = imports + "sys.exit(run_processes(sys.argv[1:], 2))"
    # A session of its own, so that the signal reaches its whole foreground group as a terminal's Ctrl-C does.
    launcher = subprocess.Popen([sys.executable, "-c", code, *python(worker)], start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(launcher.pid, signal.SIGINT)
    assert launcher.wait(timeout=60) == 130
    assert [(tmp_path / f"presses{rank}").read_text() for rank in range(2)] == ["1", "1"]


def test_a_hangup_is_not_handed_on_under_nohup(tmp_path):
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "from langptune_rs.distributed.launch import run_processes; sys.exit(run_processes(sys.argv[1:], 2))"
    )
    worker = f"open(f'{tmp_path}/ready{{rank}}', 'w').close(); time.sleep(2)"
    launcher = subprocess.Popen([sys.executable, "-c", code, *python(worker)])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.send_signal(signal.SIGHUP)
    assert launcher.wait(timeout=60) == 0


def test_a_second_ctrl_c_ends_what_hangs(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "SECONDS_TO_FOLLOW", 0.5)
    worker = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); open(f'{tmp_path}/{{rank}}', 'w').close(); "
    press = threading.Thread(target=press_twice_when, args=(lambda: len(list(tmp_path.iterdir())) == 2,))
    press.start()
    assert run_processes(python(worker + "time.sleep(600)"), 2) == 130
    press.join()


def press_twice_when(begun):
    while not begun():
        time.sleep(0.05)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
