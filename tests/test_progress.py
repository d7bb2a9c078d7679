"""Progress of work: what has been done before is no measure of how fast it goes on."""

import re
import sys

import pytest

from langptune_rs.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes where it is told."""
    now = [0.0]
    for name in ("time.monotonic", "rich.console.monotonic"):
        monkeypatch.setattr(name, lambda: now[0])
    monkeypatch.setenv("RANK", "0")
    return now


@pytest.mark.parametrize(("seconds", "rate"), [(4, "2.0 s each, 4 s left"), (0.5, "4.0/s, 0 s left")])
def test_lines_leave_what_was_done_before_out_of_the_rate(clock, capsys, monkeypatch, seconds, rate):
    monkeypatch.setattr("langptune_rs.progress.SECONDS_BETWEEN_LINES", 0.0)
    with progress(100, "steps", 96) as advance:
        clock[0] += seconds
        advance(2, note="loss 1")
    assert capsys.readouterr().err == f"steps: 98/100, {rate} loss 1\n"


def test_the_bar_leaves_what_was_done_before_out_of_the_rate(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(100, "steps", 90) as advance:
        for _ in range(5):
            clock[0] += 2
            advance()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert "95/100 2.0 s each 0:00:10 0:00:10" in shown


def test_processes_other_than_the_first_say_nothing(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with progress(1, "steps") as advance:
        advance()
    assert capsys.readouterr().err == ""


def test_a_name_in_brackets_is_shown_as_it_is(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(2, "Reading [bold]log[/x].csv") as advance:
        clock[0] += 2
        advance(note="[red]")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert "Reading [bold]log[/x].csv" in shown.replace("\n", " ")
