"""What must fit together before any work is done."""

from __future__ import annotations

import numpy as np
import torch

from langptune_rs.config import RunConfig
from langptune_rs.config.reward import parse_reward
from langptune_rs.distributed.collectives import world_size
from langptune_rs.errors import ConfigError
from langptune_rs.rollout.reward import check_recommender
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.training.subjects import Assignment


def check_precision(config: RunConfig) -> None:
    """Raise `ConfigError` when the GPU that the run uses has no units for the precision of the recipe."""
    if config.engine.precision != "bf16" or not torch.cuda.is_available():
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        major, minor = torch.cuda.get_device_capability()
        also = ' and rlso.precision = "fp32"' if config.rlso.precision == "bf16" else ""
        raise ConfigError(
            f'engine.precision = "bf16", but {torch.cuda.get_device_name()} has compute capability {major}.{minor} and '
            f'bfloat16 takes 8.0. It has float32: set engine.precision = "fp32"{also}.'
        )


def check_reward(config: RunConfig, *, gives_scores: bool) -> None:
    """Raise `ConfigError` when the reward of a run needs the scores of all items and its recommender only ranks."""
    if config.trains_policy:
        check_recommender(parse_reward(config.rlso.reward), gives_scores=gives_scores)


def check_sizes(config: RunConfig, num_sessions: int, num_in_split: int, name: str = "training sessions") -> None:
    """Raise `ConfigError` when the number of training sessions does not suit the processes or the batch sizes.

    `num_in_split` counts the train split after `data.train_share`; `data.max_sessions` may leave some of its sessions
    out, of which only the steps on histories make use. `name` is what is counted in place of sessions.
    """
    num_processes = world_size()
    cause, more = _limit(config, num_sessions, num_in_split)
    if num_processes > num_sessions:
        raise ConfigError(
            f"There are {num_processes} processes, but only {num_sessions} {name}{cause}. "
            f"Start at most {num_sessions}, or {more}."
        )
    for_embedder = num_sessions if config.trains_on_profiles else num_in_split
    sections = (
        ("contrastive", config.trains_embedder, config.contrastive.batch_size, for_embedder),
        ("rlso", config.trains_policy, config.rlso.batch_size, num_sessions),
    )
    for section, trains, batch_size, available in sections:
        if trains and batch_size > available:
            most = available - available % num_processes  # a multiple, as every process takes an equal share
            cause, more = _limit(config, available, num_in_split)
            raise ConfigError(
                f"{section}.batch_size = {batch_size}, but there are only {available} {name}{cause}. "
                f"Set it to at most {most}, or {more}."
            )
        if trains and batch_size % num_processes:
            raise ConfigError(
                f"{section}.batch_size = {batch_size} cannot be shared equally by {num_processes} processes. "
                f"Choose a multiple of {num_processes}."
            )


def _limit(config: RunConfig, num_sessions: int, num_in_split: int) -> tuple[str, str]:
    """Why there are no more sessions, in brackets where the recipe says so, and what gives more."""
    if num_sessions < num_in_split:
        return f" (data.max_sessions = {config.data.max_sessions} of {num_in_split})", "raise data.max_sessions"
    if config.data.train_share < 1:
        return f" (data.train_share = {config.data.train_share:g})", "raise data.train_share"
    return "", "prepare more data"


def check_prompts(assignment: Assignment, writer: ProfileWriter) -> None:
    """Raise `ModelError` when the longest prompt of an assignment leaves no room for a text in the policy's context."""
    for subjects in (assignment.train, assignment.validation, *assignment.others):
        writer.check_context(subjects.prompts(np.arange(len(subjects.ids)), writer))
