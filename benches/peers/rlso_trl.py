"""A step by TRL's RLOO trainer: two generations a prompt, the same reward and number of optimizer steps."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from peers.rlso_work import LEARNING_RATE, Clock, Settings, Work
from transformers import AutoModelForCausalLM
from trl import RLOOConfig, RLOOTrainer

from langptune_rs.models.policy import Policy
from langptune_rs.models.weights import policy_folder

SEQUENCES = 8
"""Sequences in one forward pass."""


def step(settings: Settings) -> dict[str, float]:
    """The numbers of one step, see `Clock.results`."""
    policy = Policy.load(settings.policy, torch.bfloat16)
    work = Work(settings, policy)
    del policy.model, policy.decoder  # TRL opens its own
    clock = Clock()
    lengths: list[int] = []

    def reward(
        completions: Sequence[str], completion_ids: Sequence[Sequence[int]], session: Sequence[int], **kwargs: object
    ) -> list[float]:
        """The trainer chooses the order of completions; `session` says whose each is."""
        lengths.extend(map(len, completion_ids))
        rows = list(session)
        ranks = work.recommender.ranks(
            list(completions), work.sessions.targets[rows], work.sessions.histories[rows]
        ).ravel()
        rewards: list[float] = (1 / torch.log2(1 + torch.from_numpy(ranks))).tolist()
        return rewards

    model: Any = AutoModelForCausalLM.from_pretrained(policy_folder(settings.policy.model), dtype=torch.bfloat16)
    model.requires_grad_(False)
    for layer in model.model.layers[-settings.last_layers :]:
        layer.requires_grad_(True)
    num_sequences = settings.num_sessions * settings.num_profiles
    arguments = RLOOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=SEQUENCES,
        gradient_accumulation_steps=num_sequences // SEQUENCES,
        num_generations=settings.num_profiles,
        num_iterations=settings.epochs,
        max_completion_length=settings.max_tokens,
        max_steps=settings.epochs,
        learning_rate=LEARNING_RATE,
        beta=0.0,
        temperature=1.0,
        bf16=True,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        shuffle_dataset=False,
        disable_tqdm=True,
    )
    prompts = [policy.tokenizer.decode(prompt) for prompt in work.prompts]
    trainer = RLOOTrainer(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": prompts, "session": list(range(len(prompts)))}),
        processing_class=policy.tokenizer,
    )
    generate = model.generate

    def timed_generate(*args: Any, **kwargs: Any) -> Any:
        with clock.timed("rollout"):
            return generate(*args, **kwargs)

    model.generate = timed_generate
    clock = Clock()
    trainer.train()
    results = clock.results(lengths, settings.epochs)
    update = results["seconds_per_step"] - results["rollout_seconds"]
    return results | {"update_seconds": update, "update_tokens_per_second": sum(lengths) * settings.epochs / update}
