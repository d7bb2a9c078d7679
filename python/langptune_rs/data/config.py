"""Configuration of the data room. Imports no data library, so that reading a recipe stays cheap."""

from typing import Literal

from pydantic import Field, PositiveInt

from langptune_rs.config_base import Section


class DataConfig(Section):
    """Where sessions come from and how they are cut and split."""

    source: str = "ml-100k"
    """A source name (`ml-100k`), a folder of `items.jsonl` and `interactions.jsonl`, or a prepared data set."""
    split: Literal["session", "leave-last-out"] = "session"
    """`session`: 84/8/8 of all sessions, seeded (section 4.1); `leave-last-out`: each user's last session is test,
    the one before validation."""
    windows: Literal["last", "all"] = "last"
    """`last`: one session per user, from the newest interactions; `all`: every non-overlapping window."""
    history_length: PositiveInt = 4
    min_interactions: PositiveInt = 5
    """k of the k-core: users and items with fewer interactions are removed until none is left."""
    template: str | None = None
    """Name of the text template; none chooses the source's own."""
    max_sessions: PositiveInt | None = None
    """Train on this many sessions at most, drawn with the run's seed."""
    seed: int = Field(0, ge=0)
    """Seed of the split; apart from the run's seed, so that runs with several seeds share one test set."""
