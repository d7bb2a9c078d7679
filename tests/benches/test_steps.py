"""The scripts that measure steps of training, at a size that says nothing."""

import json
from pathlib import Path

import pytest
import torch
from tests.processes import run_script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

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
