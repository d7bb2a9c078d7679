"""Where sessions come from. Imports no data library, so that reading a recipe is fast."""

import math
import re
from typing import Literal, NamedTuple

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from langptune_rs.config.section import Section
from langptune_rs.errors import ConfigError

TEMPLATES = ("movies", "products", "generic", "books", "games", "music", "paper")
"""The built-in templates; their words are in `data/wording/`."""
TEMPLATE_SUFFIX = ".jinja"
_RATING = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_SCALE = re.compile(rf"{_RATING}\s*-\s*{_RATING}", re.IGNORECASE)


class RatingScale(NamedTuple):
    """The lowest and the highest rating that can be given."""

    low: float
    high: float

    def __str__(self) -> str:
        """The scale with all digits, as `parse_scale` reads it: 0-1000000."""
        return "-".join(map(_in_digits, self))

    @property
    def words(self) -> str:
        """The scale in a sentence: "0 to 10"."""
        return " to ".join(map(_in_digits, self))

    @property
    def stars_per_point(self) -> float:
        """How much of the scale from 0 to 5 one point of this one is."""
        return 5.0 / (self.high - self.low)


def _in_digits(rating: float) -> str:
    """A rating with as many digits as it needs to be read back: 1000000, 0.1, 1e-05."""
    return repr(rating + 0.0).removesuffix(".0")  # + 0.0 makes -0.0 a zero


STARS = RatingScale(0.0, 5.0)
"""The scale of all ratings in a prepared data set, and so in prompts."""


class DataConfig(Section):
    """Where sessions come from and how they are cut and split."""

    source: str = "ml-100k"
    """A source name (`ml-100k`), a folder of `items.jsonl` and `interactions.jsonl`, or a prepared data set, which
    keeps the sessions and the split it was prepared with."""
    split: Literal["session", "leave-last-out", "temporal", "published"] = "session"
    """`session`: 84/8/8 of all sessions, seeded (section 4.1); `leave-last-out`: each user's last session is test,
    the one before validation, all others train; `temporal`: 84/8/8 by the time of the target, the newest are test;
    `published`: the split that the source `published` comes with, for that source only."""
    held_out: PositiveInt | None = None
    """Sessions of validation, and as many of test. Unset: 8% of all. The paper holds out 1,392 of 17,482."""
    windows: Literal["last", "all"] | None = None
    """`last`: one session per user, from the newest interactions; `all`: every non-overlapping window, from the
    oldest. Unset: `last` for the split `session`, `all` for the others."""
    history_length: PositiveInt = 4
    """Items in a session's history; the target comes after them."""
    min_interactions: PositiveInt = 5
    """k of the k-core: users and items with fewer interactions are removed until none is left."""
    max_item_tokens: PositiveInt | None = 512
    """Items whose text has more tokens for the embedder are removed (section 4.1); none keeps all."""
    max_history_tokens: PositiveInt | None = 1024
    """Sessions whose history has more tokens for the policy are removed (section 4.1); none keeps all."""
    template: str | None = None
    """Wording of the prompts, by name or as a .jinja file. Unset: the source's own."""
    compat: Literal["paper", "reference"] = "paper"
    """Which to follow where the paper and its published code differ. `reference`: a session is a user's first items, of
    which only the target is surely distinct, and the first users of the file train."""
    on_bad_line: Literal["error", "skip"] = "error"
    """What to do with a line that cannot be used: stop with an error, or skip it."""
    rating_scale: str | None = None
    """The scale of the ratings in the files, such as 0-10, 0-100, 0-1 or -1-1. They are brought to 0-5, which is also
    the scale of files where this is unset, and so are the items' average ratings."""
    max_sessions: PositiveInt | None = None
    """Train on this many sessions at most, drawn with the run's seed."""
    train_share: float = Field(default=1.0, gt=0, le=1)
    """Train as though there were only this share of the train sessions, drawn with the run's seed: steps on histories,
    targets, popularity and `max_sessions` are of these."""
    num_targets: PositiveInt = 1
    """The reward of a train session averages over this many targets: its own, and the items that its user chose next
    in later train sessions. A user with fewer has fewer. None is a target of the user in validation or test."""
    seed: int = Field(default=0, ge=0)
    """Seed of the split, separate from the run's seed, so that runs with different seeds share one test set."""

    @property
    def window_rule(self) -> Literal["last", "all", "first"]:
        """`windows`, or the split's own choice where it is unset."""
        if self.compat == "reference":
            return "first"
        return self.windows or ("last" if self.split == "session" else "all")

    @property
    def split_rule(self) -> str:
        """`split`, or `reference` for the split of the reference code."""
        return "reference" if self.compat == "reference" else self.split

    @property
    def scale(self) -> RatingScale:
        """`rating_scale`, or 0 to 5 where it is unset."""
        return STARS if self.rating_scale is None else parse_scale(self.rating_scale)

    @field_validator("rating_scale")
    @classmethod
    def _check_scale(cls, text: str | None) -> str | None:
        """A scale in one spelling. That of stars is the unset one."""
        scale = STARS if text is None else parse_scale(text)
        return None if scale == STARS else str(scale)

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str | None) -> str | None:
        if template is not None and template not in TEMPLATES and not template.endswith(TEMPLATE_SUFFIX):
            raise ValueError(
                f"there is no template {template!r}; choose one of {', '.join(TEMPLATES)}, "
                f"or give a {TEMPLATE_SUFFIX} file"
            )
        return template

    @model_validator(mode="after")
    def _check_held_out(self) -> "DataConfig":
        if self.held_out is not None and self.split == "leave-last-out":
            raise ValueError('split "leave-last-out" holds out two sessions of each user; leave held_out unset')
        return self

    @model_validator(mode="after")
    def _check_windows(self) -> "DataConfig":
        if self.split == "leave-last-out" and self.windows == "last":
            raise ValueError(
                'split "leave-last-out" needs several sessions per user, but windows = "last" makes one; '
                'set windows = "all"'
            )
        if self.compat == "reference" and (self.windows is not None or self.split != "session"):
            raise ValueError(
                'compat "reference" has its own windows and split; leave windows unset and split = "session"'
            )
        return self


def parse_scale(text: str) -> RatingScale:
    """The scale that "0-10" or "-1-1" means. Raises `ValueError` for a text that is no scale."""
    found = _SCALE.fullmatch(text.strip())
    scale = RatingScale(*map(float, found.groups())) if found else None
    if scale is None or scale.low >= scale.high or not _can_be_computed(scale):
        raise ValueError(
            f"rating_scale {text!r} is no scale; write the lowest and the highest rating that there can be, as 0-10"
        )
    return scale


def _can_be_computed(scale: RatingScale) -> bool:
    """Whether neither the width of a scale nor what a point of it is worth is beyond a float's range."""
    return math.isfinite(scale.high - scale.low) and 0 < scale.stars_per_point < math.inf


def make_config(**settings: object) -> DataConfig:
    """A `DataConfig`. Raises `ConfigError` for settings that are wrong or do not go together."""
    try:
        return DataConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())) from error
