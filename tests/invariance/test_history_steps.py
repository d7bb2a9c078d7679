"""The steps on titles of histories, before any profile is written."""

import signal

import numpy as np
import pytest
import torch
from tests.invariance.test_training import assert_same_weights, assert_trained_alike

from langptune_rs.config import load_config
from langptune_rs.data import load
from langptune_rs.models.embedder import Embedder
from langptune_rs.seeds import derive_seed
from langptune_rs.training.schedules import batch_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUM_STEPS = 5
OPTIONS = (f"contrastive.history_steps={NUM_STEPS}", "data.max_sessions=12", "logging.tensorboard=false")
"""Fewer sessions than the batches of five steps have, so that only all train sessions serve them without repeats."""
ALONE = (*OPTIONS, "method=LangPTune-CL", "contrastive.steps=0", "evaluation.max_sessions=4")


def of_phase(run, phase):
    return [line for line in run.lines if line["phase"] == phase]


def test_they_come_first_with_a_decay_of_their_own_and_a_validation_after_them(train):
    run = train(*OPTIONS)
    assert run.exit_code == 0, run.stderr
    phases = [line["phase"] for line in run.lines]
    assert phases[: NUM_STEPS + 3] == ["validation", *["history"] * NUM_STEPS, "validation", "contrastive"]
    assert [line["step"] for line in run.lines if line["phase"] != "validation"] == list(range(1, 15 + NUM_STEPS))
    assert [line["step"] for line in of_phase(run, "validation")] == [0, 5, 8, 12, 15, 19]
    rates = [line["contrastive/learning_rate"] for line in of_phase(run, "history")]
    assert rates == pytest.approx([1e-4 * (1 - j / NUM_STEPS) for j in range(NUM_STEPS)])
    assert of_phase(run, "contrastive")[0]["contrastive/learning_rate"] == 1e-4


def test_a_method_that_does_not_train_the_embedder_has_none(train):
    run = train(*OPTIONS, "method=LangPTune-RLSO", "evaluation.max_sessions=4")
    assert run.exit_code == 0, run.stderr
    assert {line["phase"] for line in run.lines} == {"rlso", "validation"}


def test_their_loss_is_that_of_the_titles_of_histories_of_all_train_sessions(train):
    """The first one, by the formula in float64."""
    run = train(*ALONE)
    config, data = load_config(run.folder / "config.toml"), load(run.folder / "data")
    sessions, titles = data.sessions.select("train"), data.catalog.titles
    rows = batch_rows(len(sessions), 8, 0, derive_seed(config.seed, "history"))
    assert max(rows) >= config.data.max_sessions
    texts = ["; ".join(titles[item] for item in sessions.histories[row]) for row in rows]
    embedder, targets = Embedder.load(config.embedder, torch.float32), sessions.targets[rows]
    profiles = embedder.encode_profiles(texts).astype(np.float64)
    items = embedder.encode_items(data.catalog.texts[targets]).astype(np.float64)
    logits = profiles @ items.T / config.contrastive.temperature
    logits[(targets[:, None] == targets) & ~np.eye(8, dtype=bool)] = -np.inf
    expected = np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))
    assert of_phase(run, "history")[0]["contrastive/loss"] == pytest.approx(expected, rel=1e-5)


def test_the_embedder_can_train_on_them_alone_and_no_profile_is_written_for_it(train):
    run = train(*ALONE)
    assert run.exit_code == 0, run.stderr
    assert {line["phase"] for line in run.lines} == {"history", "validation"}
    assert [line["step"] for line in of_phase(run, "validation")] == [0, NUM_STEPS]
    assert not list((run.folder / "checkpoints").glob("profiles-*"))
    before, after = train.initial("embedder"), run.weights("embedder")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    policy = run.weights("policy")
    assert all(torch.equal(weight, policy[name]) for name, weight in train.initial("policy").items())


def test_the_policy_learns_after_them_where_no_profile_trains_the_embedder(train):
    run = train(*OPTIONS, "contrastive.steps=0")
    assert run.exit_code == 0, run.stderr
    assert {line["phase"] for line in run.lines} == {"history", "rlso", "validation"}
    assert [line["step"] for line in of_phase(run, "validation")] == [0, 5, 9, 13]


@pytest.mark.parametrize(
    ("step", "phase", "how", "every"),
    [
        (2, "history", signal.SIGINT, 50),
        (3, "history", signal.SIGKILL, 1),
        (NUM_STEPS, "history", signal.SIGKILL, NUM_STEPS),
        (NUM_STEPS, "validation", signal.SIGKILL, NUM_STEPS),
        (6, "contrastive", signal.SIGINT, 50),
    ],
)
def test_a_run_that_is_stopped_in_them_ends_as_the_uninterrupted_one(train, step, phase, how, every):
    options = (*OPTIONS, f"checkpoint.every={every}")
    stopped = train.stop_at(step, how, *options, phase=phase)
    assert stopped.exit_code == (130 if how == signal.SIGINT else -how), stopped.stderr
    resumed = train(*options, resume=stopped.folder)
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.lines == train(*OPTIONS).lines
    assert_same_weights(train(*OPTIONS), resumed)


def test_two_processes_give_the_losses_of_one(train):
    one, two = train(*OPTIONS), train(*OPTIONS, nproc=2)
    assert two.exit_code == 0, two.stderr
    assert two.losses == pytest.approx(one.losses, rel=1e-6)
    assert_trained_alike(train, one, two)


def test_a_loss_that_is_no_number_names_the_key_to_lower(train):
    run = train(*ALONE, "contrastive.learning_rate=1e30")
    assert run.exit_code == 2
    assert "The contrastive loss is " in run.stderr
    assert "Lower contrastive.learning_rate." in run.stderr
