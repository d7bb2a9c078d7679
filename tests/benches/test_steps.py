"""The scripts that measure steps of training, at a size that says nothing."""

import json
from pathlib import Path

import pytest
import torch
from tests.processes import run_script

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

BENCHES = Path(__file__).parents[2] / "benches"
PARTS = ["prefill", "decode", "score", "update"]


def printed(script: str, *options: str) -> dict:
    """What a script prints as JSON."""
    return json.loads(run_script(BENCHES / script, *options, "--json"))


def test_a_step_of_rlso_is_measured():
    numbers = printed("rlso_step.py", "--peers", "ours", "--sessions", "2", "--max-tokens", "4", "--epochs", "1")
    assert {"seconds_per_step", "peak_memory_mib", "rollout_tokens_per_second"} <= numbers.keys()
    assert all(numbers[column]["ours"] > 0 for column in numbers)
    assert numbers["tokens_per_profile"]["ours"] <= 4


def test_two_checkouts_are_compared_beside_a_busy_process(tmp_path):
    for folder in ("benches", "python"):
        (tmp_path / folder).symlink_to(BENCHES.parent / folder)
    small = ("--sessions", "2", "--max-tokens", "4", "--epochs", "1")
    table = run_script(BENCHES / "old_new.py", str(tmp_path), "--busy", "1", *small)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    names = ["rollout seconds", "update seconds", "seconds per step", "peak memory mib"]
    assert [row[:2] for row in rows] == [["1 busy", name] for name in names]
    for row in rows:
        old, new, ratio = (float(cell.replace(",", "")) for cell in row[2:])
        assert ratio == pytest.approx(old / new, rel=0.1, abs=0.01)
    assert float(rows[3][4]) == pytest.approx(1, rel=0.2), "the same program takes as much memory"


def test_a_neighbour_is_measured():
    table = run_script(BENCHES / "neighbour.py", "--sessions", "2", "--max-tokens", "4", "--rounds", "1")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["writing", "an update", "encoding", "ranking"]
    assert all(float(row[2]) > 0 for row in rows)


def test_the_noise_of_log_ratios_is_measured():
    """Rounding to bfloat16 hides most of a step; float32 and bfloat16 in two parts see all of it."""
    sizes = ("--sessions", "3", "--max-tokens", "40", "--learning-rates", "1e-6", "--updates", "2", "--updated", "fp32")
    ways = ("bf16", "fp32, products bf16", "fp32, products 2 x bf16", "fp32")
    rows = {row["way"]: row for row in printed("log_ratio_noise.py", *sizes, "--ways", *ways)}
    assert set(rows) == {"fp64 behind a bf16 trunk", *ways}
    for way in ways[:2]:
        assert rows[way]["noise / step"] > 0.3
    for way in ways[2:]:
        assert rows[way]["noise / step"] < 0.01
        assert rows[way]["seen"] == pytest.approx(1, abs=0.01)
    assert rows["fp32"]["error"] < 1e-3 < rows["bf16"]["error"]
    assert rows["fp32"]["rounding"] < 1e-3 < rows["bf16"]["rounding"]
    first, second = rows["fp32"]["losses"]
    assert second < first


def test_the_script_for_gpus_measures_any_machine_whose_peak_is_given():
    small = ("--policy", "smollm2-135m", "--sessions", "2", "--max-tokens", "4", "--epochs", "1")
    numbers = printed("gpu_step.py", *small, "--peak", "100", "1000")
    assert list(numbers["parts"]) == PARTS
    assert numbers["seconds_per_step"] == pytest.approx(sum(part["seconds"] for part in numbers["parts"].values()))
    for part in numbers["parts"].values():
        assert 0 < part["share_of_flops"] < 1
        assert 0 < part["share_of_bandwidth"] < 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the models of the paper need a GPU with 80 GB")
@pytest.mark.parametrize("policy", ["llama-3-8b", "gemma-2b"])
def test_the_models_of_the_paper_take_a_step(policy):
    numbers = printed("gpu_step.py", "--policy", policy, "--sessions", "8", "--max-tokens", "32")
    assert numbers["tokens_per_profile"] > 16
    assert all(part["share_of_flops"] < 1 for part in numbers["parts"].values())


def test_the_kernels_of_decoding_are_measured():
    rows = [
        line.strip("|").split("|") for line in run_script(BENCHES / "decoding.py", "--rounds", "1").splitlines()[2:]
    ]
    assert len(rows) == 5
    assert all(float(row[1]) > 0 for row in rows)
