"""Decoding against transformers' own generate, and the properties a sampler must have."""

import pytest
import torch

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.batches import reading
from langptune_rs.rollout.sampling import write_profiles

QUESTIONS = ["Describe a person who likes jazz.", "Hi", "What would a fan of slow science fiction read next? Be brief."]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(PolicyConfig())


@pytest.fixture(scope="module")
def prompts(policy: Policy) -> list[list[int]]:
    return [policy.encode_prompt(question) for question in QUESTIONS]


def test_greedy_equals_generate(policy: Policy, prompts: list[list[int]]) -> None:
    written = write_profiles(policy, prompts, max_tokens=12, temperatures=[0])
    for prompt, tokens in zip(prompts, written.tokens, strict=True):
        ids = torch.tensor([prompt])
        out = policy.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        assert tokens == out[0, len(prompt) :].tolist()


def test_samples_do_not_depend_on_the_batch(policy: Policy, prompts: list[list[int]]) -> None:
    options = {"max_tokens": 10, "temperatures": [1.0, 1.0]}
    together = write_profiles(policy, prompts, seeds=[1, 2, 3], **options)
    alone = [write_profiles(policy, [p], seeds=[s], **options) for p, s in zip(prompts, [1, 2, 3], strict=True)]
    assert together.tokens == [tokens for one in alone for tokens in one.tokens]
    small_batches = write_profiles(policy, prompts, seeds=[1, 2, 3], token_budget=1, **options)
    assert together.tokens == small_batches.tokens


def test_batches_that_were_kept_are_not_written_again(policy: Policy, prompts: list[list[int]]) -> None:
    options = {"max_tokens": 6, "temperatures": [1.0, 1.0], "seeds": [1, 2, 3], "token_budget": 1}
    kept: list[list[list[int]]] = []
    whole = write_profiles(policy, prompts, on_batch=kept.append, **options)
    assert [len(batch) for batch in kept] == [2, 2, 2]
    kept[0][1] = [0]
    written: list[list[list[int]]] = []
    resumed = write_profiles(policy, prompts, kept=kept[:2], on_batch=written.append, **options)
    assert written == kept[2:]
    changed = [i for i in range(6) if resumed.tokens[i] != whole.tokens[i]]
    assert [resumed.tokens[i] for i in changed] == [[0]]


def test_samples_of_a_prompt_differ_and_follow_the_seed(policy: Policy, prompts: list[list[int]]) -> None:
    options = {"max_tokens": 8, "temperatures": [1.0] * 3}
    first = write_profiles(policy, prompts[:1], seeds=[5], **options)
    assert len({tuple(tokens) for tokens in first.tokens}) == 3
    assert first.tokens == write_profiles(policy, prompts[:1], seeds=[5], **options).tokens
    assert first.tokens != write_profiles(policy, prompts[:1], seeds=[6], **options).tokens


def test_a_profile_stops_at_its_end_of_turn(policy: Policy) -> None:
    prompt = policy.encode_prompt("Answer with the single word yes and nothing else.")
    written = write_profiles(policy, [prompt, prompt], max_tokens=40, temperatures=[1.0] * 4, seeds=[1, 2])
    for tokens, finished in zip(written.tokens, written.finished, strict=True):
        assert finished == (tokens[-1] in policy.eos_ids)
        assert not set(tokens[:-1]) & policy.eos_ids
        assert finished or len(tokens) == 40
    assert written.finished.any()
    assert all("<|im_end|>" not in text for text in written.texts)


def test_greedy_and_sampled_profiles_share_a_batch(policy: Policy, prompts: list[list[int]]) -> None:
    both = write_profiles(policy, prompts, max_tokens=10, temperatures=[0.0, 1.0], seeds=[1, 2, 3])
    greedy = write_profiles(policy, prompts, max_tokens=10, temperatures=[0.0])
    assert both.tokens[::2] == greedy.tokens
    assert both.tokens[1::2] != greedy.tokens


def test_a_limit_beyond_the_context_is_refused(policy: Policy, prompts: list[list[int]]) -> None:
    with pytest.raises(ModelError, match=r"profile\.max_tokens = 9000 .* context of 8192"):
        write_profiles(policy, prompts, max_tokens=9000, temperatures=[0])


@pytest.mark.parametrize(
    ("length", "advice"), [(8190, "to at most 2"), (8192, "Give shorter histories"), (9000, "Give")]
)
def test_what_is_said_of_a_limit_beyond_the_context_can_be_done(policy: Policy, length: int, advice: str) -> None:
    with pytest.raises(ModelError, match=advice) as raised:
        write_profiles(policy, [[1] * length], max_tokens=168, temperatures=[0])
    assert ("Set profile.max_tokens" in str(raised.value)) == (length < 8192)


def test_writing_can_be_ended_before_any_token(policy: Policy, prompts: list[list[int]]) -> None:
    """And the policy writes the same afterwards."""
    options = {"max_tokens": 8, "temperatures": [0.0]}
    expected = write_profiles(policy, prompts, **options)
    calls = []

    def end_at_the_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError("nobody waits any more")

    with pytest.raises(InterruptedError):
        write_profiles(policy, prompts, on_token=end_at_the_third, **options)
    assert len(calls) == 3
    assert write_profiles(policy, prompts, **options).tokens == expected.tokens


def test_an_open_reader_writes_what_a_new_one_would(policy: Policy, prompts: list[list[int]]) -> None:
    options = {"max_tokens": 8, "temperatures": [0.0, 1.0], "seeds": [1, 2, 3]}
    expected = write_profiles(policy, prompts, **options)
    with reading(policy) as reader:
        for _ in range(2):
            assert write_profiles(policy, prompts, reader=reader, **options).tokens == expected.tokens
