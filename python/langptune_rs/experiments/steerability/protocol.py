"""What decides the measurement, beside the runs: how many users and tags, and the seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from langptune_rs.errors import InputError

DEFINITION = 1
"""Counts up when an edit, a control or a measure changes, so that what is kept of an earlier one is measured again."""

Direction = Literal["increase", "decrease"]
Texts = Literal["as is", "scrubbed"]
"""The texts of the items: as they are, or without the words of the tag."""
AS_IS: Texts = "as is"
SCRUBBED: Texts = "scrubbed"
STRENGTHS = (1, 2, 3)
REQUEST_WEIGHTS = {1: 0.2, 2: 0.4, 3: 0.8}
"""The weight of a request's embedding beside the profile's, for each strength. Below 1 it cannot cancel the profile."""
POOL_SIZE = 50
"""Items with the tag, and as many without, in the pool of SteerEval (arXiv 2601.21105)."""


@dataclass(frozen=True)
class Protocol:
    """How much is measured. More users take longer in proportion, and so do more tags.

    Attributes:
        num_users: users, each with one session; all if there are fewer.
        tags_per_stratum: tags of each of three strata of frequency.
        tags: names of tags to measure instead.
        min_items: items that a tag must have, and that must be without it.
        judge: the model that judges profiles, by name or folder.
        seed: what the draws of users, tags and items come from.
    """

    num_users: int = 200
    tags_per_stratum: int = 4
    tags: tuple[str, ...] = ()
    min_items: int = 25
    judge: str = "wordllama"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_users", 2), ("tags_per_stratum", 1), ("min_items", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} = {getattr(self, name)}: at least {least} is needed to measure anything")

    def to_json(self) -> dict[str, Any]:
        """Its values, for a file."""
        return {**asdict(self), "tags": list(self.tags)}
