"""A run goes on without the profiles whose log-probability is no number, alike for any number of processes."""

import math
from dataclasses import replace

import pytest
import torch
from tests.invariance.conftest import ALWAYS, ONE_THREAD, Finished
from tests.processes import rank_of_run, start_ranks

from langptune_rs.config import load_config, to_toml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def lose_profiles() -> None:
    """In this process the second profile of some prompts has states that are no numbers, whoever holds the session."""
    from langptune_rs.training import rollouts

    pack = rollouts.pack_rollout

    def pack_with_nan(policy, prompts, profiles, num_profiles, capacity, **options):
        states = list(profiles.states.profiles)
        for i, prompt in enumerate(prompts):
            if sum(prompt) % 4 == 0:
                states[i * num_profiles + 1] = torch.full_like(states[i * num_profiles + 1], math.nan)
        profiles = replace(profiles, states=replace(profiles.states, profiles=states))
        return pack(policy, prompts, profiles, num_profiles, capacity, **options)

    rollouts.pack_rollout = pack_with_nan


@pytest.mark.parametrize(("kl_penalty", "stage"), [(0, 3), (0.02, 0)])
def test_a_run_goes_on_without_them(train, tmp_path, kl_penalty, stage):
    """With a penalty they are found before the step, without one within it, where stage 3 needs all ranks together."""
    overrides = [*ALWAYS, "method=LangPTune-RLSO", f"rlso.kl_penalty={kl_penalty}", "rlso.num_profiles=3"]
    runs = []
    for num_processes in (1, 2):
        folder, recipe, log = (tmp_path / f"{name}-{num_processes}" for name in ("run", "recipe", "log"))
        of_engine = [f"engine.zero_stage={stage}"] * (num_processes > 1)
        recipe = recipe.with_suffix(".toml")
        recipe.write_text(to_toml(load_config(train.recipe, [*overrides, *of_engine])))
        work = rank_of_run("--config", str(recipe), "--output", str(folder), fault=lose_profiles)
        processes = start_ranks(work, log, num_processes, ONE_THREAD)
        assert [process.wait(280) for process in processes] == [0] * num_processes, log.read_text()
        assert "Left out of the loss, as their log-probability is not finite: profile 2 of session " in log.read_text()
        runs.append(Finished(folder, 0, log.read_text()))
    one, two = runs
    counts = [[line["rlso/unusable_profiles"] for line in run.lines if "rlso/loss" in line] for run in runs]
    assert max(counts[0]) > 0
    assert counts[0] == counts[1]
    assert all(math.isfinite(loss) for loss in one.losses)
    assert two.losses == pytest.approx(one.losses, rel=1e-6)
