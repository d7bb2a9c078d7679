"""A step as the published reference code takes it, written anew from a description of its procedure.

Prompts are padded to one length and read once for each of their profiles. Profiles are decoded to the limit without a
stop at the end of the turn. Logits are computed over the whole vocabulary for every position, in float32. The frozen
layers run again for the old log-probabilities and in each epoch; the reference policy's layers start from the shared
trunk. Each rank is found by sorting the catalog. Batches are 8 sequences to generate, 8 to score, 2 sessions to train.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from peers.rlso_work import LEARNING_RATE, Clock, Settings, Work

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.models.policy import Policy
from langptune_rs.training.objectives import ScoredProfiles
from langptune_rs.training.objectives.rlso import loss as rlso_loss

PROMPT_TOKENS = 1024
SEQUENCES = 8
"""Sequences in one forward pass."""


def step(settings: Settings) -> dict[str, float]:
    """The numbers of one step, see `Clock.results`."""
    policy = Policy.load(settings.policy, torch.bfloat16)
    model, pad = policy.model, policy.tokenizer.pad_token_id or 0
    model.set_attn_implementation("eager")
    reference = copy.deepcopy(policy.decoder.layers[-settings.last_layers :])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-6, weight_decay=1e-6)
    work = Work(settings, policy)
    prompts = [prompt[-PROMPT_TOKENS:] for prompt in work.prompts]
    prompt_ids = torch.tensor([[pad] * (PROMPT_TOKENS - len(p)) + p for p in prompts])
    prompt_mask = torch.tensor([[0] * (PROMPT_TOKENS - len(p)) + [1] * len(p) for p in prompts])
    prompt_ids, prompt_mask = (x.repeat_interleave(settings.num_profiles, 0) for x in (prompt_ids, prompt_mask))

    torch.manual_seed(0)
    clock = Clock()
    with clock.timed("rollout"), torch.no_grad():
        written = [
            model.generate(  # type: ignore[operator]  # declared by a mixin of the model's class
                ids,
                attention_mask=mask,
                max_new_tokens=settings.max_tokens,
                min_new_tokens=settings.max_tokens,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=pad,
            )
            for ids, mask in zip(torch.split(prompt_ids, SEQUENCES), torch.split(prompt_mask, SEQUENCES), strict=True)
        ]
    ids = torch.cat(written)
    profiles = ids[:, PROMPT_TOKENS:]
    mask = torch.cat([prompt_mask, torch.ones_like(profiles)], 1)
    texts = policy.tokenizer.batch_decode(profiles, skip_special_tokens=True)
    rewards = torch.from_numpy(_sorted_reward(work, texts, settings.num_profiles)).float()

    with clock.timed("update"):
        with torch.no_grad():
            parts = [
                _old_and_reference(policy, reference, *rows, settings)
                for rows in zip(torch.split(ids, SEQUENCES), torch.split(mask, SEQUENCES), strict=True)
            ]
        old, reference_logps = (torch.cat(logps) for logps in zip(*parts, strict=True))
        rewards = rewards - 0.0 * (old - reference_logps)
        rewards = ((rewards - rewards.mean()) / rewards.std()).view(-1, settings.num_profiles)
        old = old.view(-1, settings.num_profiles)
        sessions = SEQUENCES // 2 // settings.num_profiles
        for _ in range(settings.epochs):
            for start in range(0, settings.num_sessions, sessions):
                pair = slice(start, start + sessions)
                rows = slice(start * settings.num_profiles, (start + sessions) * settings.num_profiles)
                outputs = model(ids[rows], attention_mask=mask[rows], output_hidden_states=True, use_cache=False)
                logits = outputs.logits.float()[:, PROMPT_TOKENS - 1 : -1]
                logps = _sequence_logps(logits, profiles[rows]).view(-1, settings.num_profiles)
                with torch.no_grad():
                    probabilities = logits.softmax(-1)  # its entropy is logged
                    (logits.logsumexp(-1) - (probabilities * logits).sum(-1)).mean().item()
                loss = rlso_loss(ScoredProfiles(rewards[pair], logps, old[pair]), RlsoConfig(eta=1.0)).mean()
                torch.autograd.backward(loss * sessions / settings.num_sessions)
            optimizer.step()
            optimizer.zero_grad()
    return clock.results([settings.max_tokens] * len(profiles), settings.epochs)


def _old_and_reference(
    policy: Policy, reference: Iterable[torch.nn.Module], ids: torch.Tensor, mask: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequence log-probabilities (sequences,) by the policy and by the reference layers on the same trunk."""
    model, decoder = policy.model, policy.decoder
    outputs = model(ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    profiles = ids[:, PROMPT_TOKENS:]
    old = _sequence_logps(outputs.logits.float()[:, PROMPT_TOKENS - 1 : -1], profiles)
    hidden = outputs.hidden_states[policy.cut]
    position_ids = torch.arange(ids.shape[1])[None]
    length = ids.shape[1]
    visible = torch.ones(length, length, dtype=torch.bool).tril() & mask[:, None, None].bool()
    bias = torch.zeros(visible.shape, dtype=hidden.dtype).masked_fill(~visible, torch.finfo(hidden.dtype).min)
    rotary = decoder.rotary_emb(hidden, position_ids=position_ids)
    for layer in reference:
        hidden = layer(hidden, attention_mask=bias, position_ids=position_ids, position_embeddings=rotary)
    logits = model.lm_head(decoder.norm(hidden)).float()[:, PROMPT_TOKENS - 1 : -1]
    return old, _sequence_logps(logits, profiles)


def _sequence_logps(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1).sum(1)


def _sorted_reward(work: Work, texts: list[str], num_profiles: int) -> NDArray[np.float64]:
    """NDCG of each profile, by sorting the whole catalog."""
    users = work.recommender.embedder.encode_profiles(texts)
    scores = users @ work.recommender.index.item_embeddings.T
    np.put_along_axis(scores, np.repeat(work.sessions.histories, num_profiles, 0), -999999, 1)
    order = np.argsort(-scores, axis=1)
    targets = np.repeat(work.sessions.targets, num_profiles)
    ranks = 1 + np.argmax(order == targets[:, None], axis=1)
    rewards: NDArray[np.float64] = 1 / np.log2(1 + ranks)
    return rewards
