"""RLSO against brute force: the loss, the standardisation, and profile log-probabilities."""

import numpy as np
import pytest
import torch

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.models.attention import missing_tokens
from langptune_rs.models.decoder import last_hidden, run_layers
from langptune_rs.models.policy import Policy
from langptune_rs.models.shared_prompts import shared_prompt_mask
from langptune_rs.rollout.sampling import Profiles, States, write_profiles
from langptune_rs.training.reference import ReferenceWeights
from langptune_rs.training.rollout_batches import RolloutBatch, pack_rollout
from langptune_rs.training.scorer import ProfileScorer, score

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


def test_mask_keeps_profiles_apart() -> None:
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 1, 0, 1, 0],
            [1, 1, 0, 1, 1],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(shared_prompt_mask(torch.tensor([0, 0, 1, 2, 2])), expected)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logps_equal_those_of_each_profile_alone(policy: Policy, rollout: tuple, temperature: float) -> None:
    """The shared prompt, the packing and the cached states change nothing: transformers' own forward is the oracle."""
    prompts, profiles = rollout
    logps = score(ProfileScorer(policy, temperature), packed(policy, rollout)).flatten()
    for i, tokens in enumerate(profiles.tokens):
        assert logps[i].item() == pytest.approx(
            alone(policy, prompts[i // NUM_PROFILES], tokens, temperature), abs=2e-3
        )


def alone(policy: Policy, prompt: list[int], tokens: list[int], temperature: float = 1.0) -> float:
    """The log-probability of one profile by transformers' own forward, in float64 from the logits on."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].double()
    log_probabilities = (logits / temperature).log_softmax(-1)
    return sum(log_probabilities[len(prompt) - 1 + t, token].item() for t, token in enumerate(tokens))


def test_what_was_written_scores_as_it_would_alone(policy: Policy, rollout: tuple) -> None:
    """With the states that were kept while the profiles were written, of all lengths from one token on."""
    prompts, _ = rollout
    profiles = write_profiles(policy, prompts, max_tokens=9, temperatures=[1.5, 1.5], seeds=[3, 4, 5], keep_states=True)
    scorer = ProfileScorer(policy)
    logps = score(scorer, pack_rollout(policy, prompts, profiles, NUM_PROFILES, 8192)).flatten()
    for i, tokens in enumerate(profiles.tokens):
        assert logps[i].item() == pytest.approx(alone(policy, prompts[i // NUM_PROFILES], tokens), abs=2e-3)


@pytest.mark.parametrize("sessions", [[0], [1], [0, 1, 2]], ids=str)
def test_profiles_that_are_only_an_end_of_turn_are_scored(policy: Policy, rollout: tuple, sessions: list[int]) -> None:
    """All profiles of some sessions are one token, from which nothing is predicted."""
    prompts, profiles = rollout
    eos = policy.tokenizer.eos_token_id
    tokens = [[eos] if i // NUM_PROFILES in sessions else row for i, row in enumerate(profiles.tokens)]
    changed = Profiles(tokens, profiles.texts, profiles.finished)
    scorer = ProfileScorer(policy)
    for capacity in (1, 8192):
        batches = packed(policy, (prompts, changed), capacity)
        assert torch.isfinite(scorer(batches[0])).all()
        logps = score(scorer, batches).flatten()
        for i, row in enumerate(tokens):
            assert logps[i].item() == pytest.approx(alone(policy, prompts[i // NUM_PROFILES], row), abs=2e-3)


def test_logps_do_not_depend_on_the_micro_batch(policy: Policy, rollout: tuple) -> None:
    scorer = ProfileScorer(policy)
    whole, single = (packed(policy, rollout, capacity) for capacity in (8192, 1))
    assert (len(whole), len(single)) == (1, 3)
    torch.testing.assert_close(score(scorer, whole), score(scorer, single), atol=1e-4, rtol=0)


def test_there_are_as_many_micro_batches_as_asked_for(policy: Policy, rollout: tuple) -> None:
    batches = packed(policy, rollout, num_batches=2)
    assert len(batches) == 2
    assert sorted(session for batch in batches for session in batch.sessions) == [0, 1, 2]


def test_states_and_trained_layers_are_the_whole_model_bit_for_bit(policy: Policy, rollout: tuple) -> None:
    """Cutting the model where its trained part begins changes no bit of a forward pass in float32."""
    prompts, profiles = rollout
    (batch,) = packed(policy, rollout)
    everything = torch.arange(sum(map(len, prompts)) + sum(len(tokens) - 1 for tokens in profiles.tokens))
    layers = policy.decoder.layers
    with torch.no_grad():
        ids = row_of_ids(prompts, profiles)
        embedded = policy.model.get_input_embeddings()(ids)
        whole = run_layers(policy.decoder, layers[:-1], embedded, batch.position_ids, batch.layout)
        whole = last_hidden(policy.decoder, whole, batch.position_ids, batch.layout, everything, checkpointing=False)
        split = policy.hidden(batch.states, batch.position_ids, batch.layout, everything)
    assert torch.equal(whole, split)


def test_gradients_equal_those_of_each_profile_alone(policy: Policy, rollout: tuple) -> None:
    """Every trained weight, against transformers' own forward on each sequence; the same with checkpointing."""
    prompts, profiles = rollout
    coefficients = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.25]])
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    loss = torch.zeros(())
    for i, tokens in enumerate(profiles.tokens):
        prompt = prompts[i // NUM_PROFILES]
        logits = policy.model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        logps = logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None]).sum()
        loss = loss + coefficients.flatten()[i] * logps
    expected = torch.autograd.grad(loss, trained)
    for checkpointing in (False, True):
        scorer = ProfileScorer(policy, checkpointing=checkpointing)
        logps = [(scorer(batch) * coefficients[batch.sessions]).sum() for batch in packed(policy, rollout, 1)]
        for actual, wanted in zip(torch.autograd.grad(sum(logps), trained), expected, strict=True):
            assert (actual - wanted).norm() < 1e-4 * wanted.norm()


def packed(policy: Policy, rollout: tuple, capacity: int = 8192, num_batches: int = 1) -> list[RolloutBatch]:
    """The rollout with states that are computed here, from all of it in one row."""
    prompts, profiles = rollout
    states = states_of(policy, prompts, profiles)
    with_states = Profiles(profiles.tokens, profiles.texts, profiles.finished, states)
    return pack_rollout(policy, prompts, with_states, NUM_PROFILES, capacity, num_batches=num_batches)


def states_of(policy: Policy, prompts: list[list[int]], profiles: Profiles) -> States:
    lengths = [[len(prompt)] for prompt in prompts]
    for i, tokens in enumerate(profiles.tokens):
        lengths[i // NUM_PROFILES].append(len(tokens) - 1)
    empty = States([torch.zeros(n[0], 1) for n in lengths], [torch.zeros(m, 1) for n in lengths for m in n[1:]])
    blank = Profiles(profiles.tokens, profiles.texts, profiles.finished, empty)
    (batch,) = pack_rollout(policy, prompts, blank, NUM_PROFILES, 8192)
    with torch.no_grad():
        row = policy.states(row_of_ids(prompts, profiles), batch.position_ids, batch.layout)[0]
    parts = row[: sum(map(sum, lengths))].split([n for session in lengths for n in session])
    each = 1 + NUM_PROFILES
    return States(list(parts[::each]), [part for i, part in enumerate(parts) if i % each])


def row_of_ids(prompts: list[list[int]], profiles: Profiles) -> torch.Tensor:
    """Token ids of the whole rollout in one row, as one micro-batch holds them, filled up likewise."""
    ids: list[int] = []
    for i, prompt in enumerate(prompts):
        ids += prompt
        for tokens in profiles.tokens[i * NUM_PROFILES : (i + 1) * NUM_PROFILES]:
            ids += tokens[:-1]
    return torch.tensor([ids + [0] * missing_tokens(len(ids))])


def test_only_the_last_layers_train(policy: Policy) -> None:
    trained = {name.split(".")[2] for name, p in policy.model.named_parameters() if p.requires_grad}
    assert trained == {"26", "27", "28", "29"}
    assert all(".layers." in name for name, p in policy.model.named_parameters() if p.requires_grad)


def test_reference_weights_come_and_go(policy: Policy, rollout: tuple) -> None:
    scorer = ProfileScorer(policy)
    batches = packed(policy, rollout)
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
