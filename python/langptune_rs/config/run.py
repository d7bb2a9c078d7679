"""The whole configuration of a run, made of one section for each part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from langptune_rs.config.checkpoint import CheckpointConfig
from langptune_rs.config.contrastive import ContrastiveConfig
from langptune_rs.config.data import DataConfig
from langptune_rs.config.description import DescriptionConfig, Writes
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.engine import EngineConfig
from langptune_rs.config.evaluation import EvaluationConfig
from langptune_rs.config.logging import LoggingConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.config.profile import ProfileConfig
from langptune_rs.config.reward import parse_reward
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.config.section import Section


class RunConfig(Section):
    """Everything that decides a run."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    iterations: PositiveInt = 1
    """K: alternations of contrastive and RLSO training."""
    method: Literal["LangPTune", "LangPTune-CL", "LangPTune-RLSO"] = "LangPTune"
    """Train both models, only the embedder, or only the policy."""
    writes: Writes = "profiles"
    """What the policy writes: profiles of users, or descriptions of items, as `langptune describe` has it."""
    data: DataConfig = DataConfig()
    policy: PolicyConfig = PolicyConfig()
    embedder: EmbedderConfig = EmbedderConfig()
    profile: ProfileConfig = ProfileConfig()
    description: DescriptionConfig = DescriptionConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()
    rlso: RlsoConfig = RlsoConfig()
    engine: EngineConfig = EngineConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()

    def value_of(self, key: str) -> object:
        """The value of a key such as `rlso.eta`."""
        section, name = key.split(".")
        return getattr(getattr(self, section), name)

    def with_values(self, values: Mapping[str, object]) -> RunConfig:
        """This configuration with other values for some keys, which are taken as they are."""
        config = self
        for key, value in values.items():
            section, name = key.split(".")
            changed = getattr(config, section).model_copy(update={name: value})
            config = config.model_copy(update={section: changed})
        return config

    @property
    def trains_embedder(self) -> bool:
        """Whether the method trains the embedder, in contrastive phases or on titles of histories."""
        return self.method != "LangPTune-RLSO"

    @property
    def trains_on_histories(self) -> bool:
        """Whether the embedder has steps on titles of histories, before the first iteration."""
        return self.trains_embedder and self.contrastive.history_steps > 0

    @property
    def trains_on_profiles(self) -> bool:
        """Whether the embedder has contrastive phases, for which the policy writes profiles."""
        return self.trains_embedder and self.contrastive.steps > 0

    @property
    def trains_policy(self) -> bool:
        """Whether the method has RLSO phases."""
        return self.method != "LangPTune-CL"

    @model_validator(mode="after")
    def _check_steps(self) -> RunConfig:
        if self.trains_embedder and not self.contrastive.steps and not self.contrastive.history_steps:
            raise ValueError(
                'contrastive.steps = 0 trains no embedder; set method = "LangPTune-RLSO" to train only the policy, or '
                "contrastive.history_steps to train the embedder on titles of histories alone"
            )
        if self.trains_policy and not self.rlso.steps:
            raise ValueError('rlso.steps = 0 trains no policy; set method = "LangPTune-CL" to train only the embedder')
        if self.trains_policy and self.rlso.steps % self.rlso.epochs:
            nearest = max(self.rlso.epochs, self.rlso.steps - self.rlso.steps % self.rlso.epochs)
            raise ValueError(
                f"rlso.steps = {self.rlso.steps} is no multiple of rlso.epochs = {self.rlso.epochs}: every rollout "
                f"batch serves {self.rlso.epochs} optimizer steps; set rlso.steps = {nearest}"
            )
        return self

    @model_validator(mode="after")
    def _check_writes(self) -> RunConfig:
        if self.writes == "descriptions" and self.method != "LangPTune-RLSO":
            raise ValueError(
                f'writes = "descriptions" trains the policy alone, and method is {self.method!r}: set method = '
                '"LangPTune-RLSO"'
            )
        return self

    @model_validator(mode="after")
    def _check_precision(self) -> RunConfig:
        if self.engine.precision == "fp32" and self.rlso.precision == "bf16":
            raise ValueError(
                'rlso.precision = "bf16" is less than engine.precision = "fp32", in which the rest of the policy is; '
                'set both to "bf16", or rlso.precision = "fp32"'
            )
        return self

    @model_validator(mode="after")
    def _check_overlong(self) -> RunConfig:
        rlso = self.rlso
        lowest = sum(term.lowest for term in parse_reward(rlso.reward))
        if self.trains_policy and lowest < rlso.overlong_reward and rlso.overlong_penalty is None:
            limit = "has no lower limit" if lowest == -math.inf else f"can be as low as {lowest:g}"
            raise ValueError(
                f"rlso.reward = {rlso.reward!r} {limit}, which is below rlso.overlong_reward = "
                f"{rlso.overlong_reward:g}, which a profile gets that does not end, so that the policy would learn not "
                "to end; set rlso.overlong_penalty, such as 0.5, which such a profile loses"
            )
        return self
