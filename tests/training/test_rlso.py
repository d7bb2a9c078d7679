"""RLSO against brute force: the loss, the standardisation, and profile log-probabilities."""

import itertools

import numpy as np
import pytest
import torch

from langptune_rs.models.config import PolicyConfig
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.training.rlso import (
    ProfileScorer,
    ReferenceWeights,
    make_rollout_batches,
    penalize,
    rlso_loss,
    score,
    shared_prompt_mask,
    standardize,
)

NUM_PROFILES = 2


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(PolicyConfig(last_layers=4))


@pytest.fixture(scope="module")
def rollout(policy: Policy) -> tuple[list[list[int]], Profiles]:
    """Prompts and profiles of unequal length."""
    prompts = [
        policy.encode_prompt(text) for text in ("I like films.", "Name one book that I would enjoy reading.", "Hi")
    ]
    texts = ["Space operas.", "Slow dramas about families", "A", "Crime novels, old ones.", "Jazz", "Jazz and blues"]
    tokens = [[*policy.tokenizer.encode(text), policy.tokenizer.eos_token_id] for text in texts]
    return prompts, Profiles(tokens, texts, np.ones(len(tokens), bool))


@pytest.mark.parametrize("num_profiles", [2, 3, 5])
@pytest.mark.parametrize("eta", [0.5, 1.0, 4.0])
def test_loss_is_equation_6_over_all_pairs(num_profiles: int, eta: float) -> None:
    rng = np.random.default_rng(0)
    rewards, logps, old = rng.normal(size=(3, 7, num_profiles))
    expected = [
        np.mean(
            [
                ((rewards[b, i] - rewards[b, j]) - ((logps - old)[b, i] - (logps - old)[b, j]) / eta) ** 2
                for i, j in itertools.combinations(range(num_profiles), 2)
            ]
        )
        for b in range(7)
    ]
    loss = rlso_loss(*(torch.from_numpy(x) for x in (rewards, logps, old)), eta)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-12)


def test_gradient_raises_the_better_profile() -> None:
    logps = torch.zeros(1, 2, requires_grad=True)
    rlso_loss(torch.tensor([[1.0, 0.0]]), logps, torch.zeros(1, 2), eta=1.0).sum().backward()
    assert logps.grad[0, 0] < 0 < logps.grad[0, 1]
    assert logps.grad.sum() == 0


def test_loss_is_zero_at_the_closed_form_solution() -> None:
    """Equation 2: the log-ratio is eta times the reward, up to a constant of the session."""
    rewards = torch.rand(4, 3, dtype=torch.float64)
    old = -10 * torch.rand(4, 3, dtype=torch.float64)
    solution = old + 2.5 * rewards - torch.rand(4, 1, dtype=torch.float64)
    assert rlso_loss(rewards, solution, old, eta=2.5).max() < 1e-24


def test_standardize_has_zero_mean_and_unit_variance() -> None:
    rewards = torch.rand(16, 2, dtype=torch.float64)
    standard = standardize(rewards)
    assert abs(standard.mean()) < 1e-12
    assert abs(standard.var(unbiased=False) - 1) < 1e-12
    assert torch.equal(standardize(torch.full((4, 2), 0.3)), torch.zeros(4, 2))


def test_penalty_is_equation_8() -> None:
    assert penalize(torch.tensor(0.5), torch.tensor(-3.0), torch.tensor(-5.0), gamma=0.2).item() == pytest.approx(0.1)


def test_mask_keeps_profiles_apart() -> None:
    segments = torch.tensor([[0, 0, 1, 2, 2, -1]])
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 0, 1, 0, 0],
            [1, 1, 0, 1, 1, 0],
            [0, 0, 0, 0, 0, 1],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(shared_prompt_mask(segments)[0, 0], expected)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logps_equal_those_of_each_profile_alone(policy: Policy, rollout: tuple, temperature: float) -> None:
    """The shared prompt, the padding and the cached trunk change nothing: transformers' own forward is the oracle."""
    prompts, profiles = rollout
    batches = make_rollout_batches(policy, prompts, profiles, NUM_PROFILES, sessions_each=3)
    logps = score(ProfileScorer(policy.head, temperature), batches).flatten()
    for i, tokens in enumerate(profiles.tokens):
        prompt = prompts[i // NUM_PROFILES]
        ids = torch.tensor([[*prompt, *tokens]])
        with torch.no_grad():
            log_probabilities = (policy.model(input_ids=ids).logits[0].double() / temperature).log_softmax(-1)
        expected = sum(log_probabilities[len(prompt) - 1 + t, token] for t, token in enumerate(tokens))
        assert logps[i].item() == pytest.approx(expected.item(), abs=2e-3)


def test_logps_do_not_depend_on_the_micro_batch(policy: Policy, rollout: tuple) -> None:
    scorer = ProfileScorer(policy.head)
    whole, single = (score(scorer, make_rollout_batches(policy, *rollout, NUM_PROFILES, n)) for n in (3, 1))
    torch.testing.assert_close(whole, single, atol=1e-3, rtol=0)


def test_trunk_and_head_are_the_whole_model_bit_for_bit(policy: Policy) -> None:
    ids = torch.randint(100, 40_000, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        whole = policy.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        hidden = policy.trunk(ids, mask, positions)
        split = policy.head(inputs_embeds=hidden, attention_mask=mask, position_ids=positions, use_cache=False).logits
    assert torch.equal(whole, split)


def test_only_the_last_layers_train(policy: Policy) -> None:
    trained = {name.split(".")[2] for name, p in policy.model.named_parameters() if p.requires_grad}
    assert trained == {"26", "27", "28", "29"}
    assert all(".layers." in name for name, p in policy.model.named_parameters() if p.requires_grad)


def test_reference_weights_come_and_go(policy: Policy, rollout: tuple) -> None:
    scorer = ProfileScorer(policy.head)
    batches = make_rollout_batches(policy, *rollout, NUM_PROFILES, 3)
    before = score(scorer, batches)
    reference = ReferenceWeights(scorer)
    trained = [p for p in scorer.parameters() if p.requires_grad]
    originals = [p.detach().clone() for p in trained]
    with torch.no_grad():
        for p in trained:
            p.mul_(1.01)
    changed = score(scorer, batches)
    with reference.in_place():
        assert torch.equal(score(scorer, batches), before)
    assert torch.equal(score(scorer, batches), changed)
    assert not torch.equal(changed, before)
    with torch.no_grad():
        for p, original in zip(trained, originals, strict=True):
            p.copy_(original)
