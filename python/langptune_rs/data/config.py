"""Configuration of the data room. Imports no data library, so that reading a recipe stays cheap."""

from typing import Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from langptune_rs.config_base import Section
from langptune_rs.errors import ConfigError


class DataConfig(Section):
    """Where sessions come from and how they are cut and split."""

    source: str = "ml-100k"
    """A source name (`ml-100k`), a folder of `items.jsonl` and `interactions.jsonl`, or a prepared data set, which
    keeps the sessions and the split it was prepared with."""
    split: Literal["session", "leave-last-out"] = "session"
    """`session`: 84/8/8 of all sessions, seeded (section 4.1); `leave-last-out`: each user's last session is test,
    the one before validation, all others train."""
    windows: Literal["last", "all"] | None = None
    """`last`: one session per user, from the newest interactions; `all`: every non-overlapping window, from the
    oldest. Unset: `last` for the split `session`, `all` for `leave-last-out`."""
    history_length: PositiveInt = 4
    """Items in a session's history; the target comes after them."""
    min_interactions: PositiveInt = 5
    """k of the k-core: users and items with fewer interactions are removed until none is left."""
    template: Literal["movies", "products", "generic"] | None = None
    """Wording of the prompts; unset takes the source's own."""
    max_sessions: PositiveInt | None = None
    """Train on this many sessions at most, drawn with the run's seed."""
    seed: int = Field(0, ge=0)
    """Seed of the split; apart from the run's seed, so that runs with several seeds share one test set."""

    @property
    def window_rule(self) -> Literal["last", "all"]:
        """`windows`, with the split's own choice where it is unset."""
        return self.windows or ("all" if self.split == "leave-last-out" else "last")

    @model_validator(mode="after")
    def _check_windows(self) -> "DataConfig":
        if self.split == "leave-last-out" and self.windows == "last":
            raise ValueError(
                'split "leave-last-out" needs several sessions per user, but windows = "last" makes one; '
                'set windows = "all"'
            )
        return self


def make_config(**settings: object) -> DataConfig:
    """A `DataConfig`. Raises `ConfigError` for settings that are wrong or do not go together."""
    try:
        return DataConfig(**settings)
    except ValidationError as error:
        raise ConfigError("; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())) from error
