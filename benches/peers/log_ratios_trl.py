"""Log-probabilities of profiles by TRL's RLOO trainer, in the precisions that it is used in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import RLOOConfig, RLOOTrainer

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.models.weights import policy_folder

SEQUENCES = 8
"""Sequences in one forward pass, TRL's default."""

OPTIONS: dict[str, dict[str, Any]] = {
    "TRL, default: fp32 under bf16 autocast": {},
    "TRL, model in bf16": {"model_init_kwargs": {"dtype": "bfloat16"}},
    "TRL, bf16 = False": {"bf16": False},
}
"""Arguments of the trainer that set its precision, by the name of a row."""


def scorers(
    config: PolicyConfig, prompts: Sequence[Sequence[int]], profiles: Sequence[Sequence[int]], temperature: float
) -> Iterator[tuple[str, Callable[[list[Tensor]], Tensor]]]:
    """For each precision its name, and what gives log-probabilities (sessions, profiles) with the trained weights."""
    for name, options in OPTIONS.items():
        trainer = _trainer(config, options, temperature)
        yield name, partial(_logps, trainer, _tensors(trainer, prompts, profiles), len(prompts))


def _trainer(config: PolicyConfig, options: dict[str, Any], temperature: float) -> Any:
    arguments = RLOOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=SEQUENCES,
        temperature=temperature,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        **options,
    )
    trainer = RLOOTrainer(
        model=str(policy_folder(config.model)),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [""]}),
    )
    trainer.model.requires_grad_(False)
    for layer in trainer.model.model.layers[-config.last_layers :]:
        layer.requires_grad_(True)
    trainer.model = trainer.accelerator.prepare_model(trainer.model)  # as `train` does
    trainer.model.eval()
    return trainer


def _tensors(
    trainer: Any, prompts: Sequence[Sequence[int]], profiles: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and attention mask of prompts, padded on the left, with profiles, padded on the right; their mask."""
    num_profiles = len(profiles) // len(prompts)
    longest_prompt, longest = max(map(len, prompts)), max(map(len, profiles))
    ids = torch.full((len(profiles), longest_prompt + longest), trainer._tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, profile in enumerate(profiles):
        prompt = prompts[row // num_profiles]
        place = slice(longest_prompt - len(prompt), longest_prompt + len(profile))
        ids[row, place] = torch.tensor([*prompt, *profile])
        mask[row, place] = 1
    return ids, mask, mask[:, longest_prompt:]


@torch.no_grad()
def _logps(trainer: Any, tensors: tuple[Tensor, Tensor, Tensor], num_prompts: int, weights: list[Tensor]) -> Tensor:
    """As the trainer's loss computes them, but for the sum, which is in float64."""
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    for parameter, weight in zip(trained, weights, strict=True):
        parameter.data.copy_(weight)
    ids, mask, profile_mask = tensors
    token_logps, *_ = trainer._get_per_token_logps_and_entropies(
        trainer.model, ids, mask, profile_mask.shape[1], batch_size=SEQUENCES
    )
    logps_BG: Tensor = (token_logps.double() * profile_mask).sum(1).view(num_prompts, -1)
    return logps_BG
