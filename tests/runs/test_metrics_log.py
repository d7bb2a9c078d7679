"""What is read of metrics.jsonl."""

import json

import pytest

from langptune_rs.errors import RunError
from langptune_rs.runs.metrics_log import read_metrics

LINE = {"step": 1, "iteration": 0, "phase": "rlso", "rlso/loss": 0.5}


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps(LINE)[:9])
    assert read_metrics(tmp_path) == [LINE]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "no JSON on line 2"),
        (b"[" * 100_000, "no JSON on line 2"),
        (b"[1]", "no object on line 2"),
        (b'{"iteration": 0, "phase": "rlso"}', "no step on line 2"),
        (b'{"step": 1.5, "iteration": 0, "phase": "rlso"}', "no step on line 2"),
        (b'{"step": 2, "iteration": 0, "phase": "rlso", "rlso/loss": "low"}', 'rlso/loss = "low", which is no number'),
        (b"\xff", "no UTF-8"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    (tmp_path / "metrics.jsonl").write_bytes(json.dumps(LINE).encode() + b"\n" + line + b"\n")
    with pytest.raises(RunError, match=rf"metrics\.jsonl .*{message}"):
        read_metrics(tmp_path)
