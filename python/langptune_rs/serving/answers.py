"""What an answer says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from langptune_rs.recommending import edits
from langptune_rs.recommending.sentences import parts_of
from langptune_rs.serving import store
from langptune_rs.serving.bodies import Policy


class Said(BaseModel):
    """What all answers have in common: the document says of each key what stands below it here."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Item(Said):
    """An item in a ranking."""

    id: str
    title: str
    score: float
    """The cosine similarity of item and profile; of the most popular items, the number of interactions."""
    rank: int
    """From 1."""


class NamedItem(Said):
    """An item of the catalog."""

    id: str
    title: str


class PastItem(NamedItem):
    """An item of a history."""

    rating: float | None
    """On the scale of the data set."""
    review: str | None


class Sentence(Said):
    """A sentence of a profile."""

    number: int
    """From 1: edits name a sentence by it."""
    text: str
    start: int
    """The sentence is the text's characters (code points) from `start` to before `end`."""
    end: int
    weight: float


class Profile(Said):
    """A profile with its sentences."""

    text: str
    weights: dict[str, float]
    requests: dict[str, float]
    sentences: list[Sentence]

    @classmethod
    def of(cls, profile: edits.Profile) -> Profile:
        """The answer for a profile."""
        sentences = [
            Sentence(
                number=number,
                text=part.text,
                start=part.start,
                end=part.end,
                weight=profile.weights.get(part.text, 1.0),
            )
            for number, part in enumerate(parts_of(profile.text), start=1)
        ]
        return cls(
            text=profile.text, weights=dict(profile.weights), requests=dict(profile.requests), sentences=sentences
        )


class Answer(Said):
    """What all answers of the models say."""

    model_version: str
    """A hash of the content of the models that answered."""


class Version(Said):
    """A version of a user's profile."""

    number: int
    profile: Profile
    kind: store.Kind
    """How it came to be: the policy wrote it, a person edited it, or it is an earlier version again."""
    changed_by: str
    changed_at: str
    """ISO 8601, UTC."""
    parent: int | None
    """The version before this one."""
    restores: int | None
    """The version whose content it is again."""
    model_version: str
    """Of the models that were served then."""

    @classmethod
    def of(cls, version: store.Version) -> Version:
        """The answer for a version."""
        return cls(**{**vars(version), "profile": Profile.of(version.profile)})


class UserAnswer(Answer):
    """A user of the data."""

    id: str
    history: list[PastItem]
    """Of the newest session, the oldest item first."""
    version: int
    """The number of the current version, 0 where there is none: what the next change expects."""
    current: Version | None


class UsersAnswer(Answer):
    """Users in the order of their ids."""

    users: list[str]
    total: int
    """How many there are in all."""


class VersionsAnswer(Answer):
    """Versions, the newest first."""

    versions: list[Version]


class VersionAnswer(Answer):
    """The version that is current after a change."""

    version: int
    current: Version


class WriteAnswer(Answer):
    """A profile that a policy wrote."""

    profile: Profile
    policy: Policy
    source: Literal["written", "saved"]
    """`saved` is from the run's own evaluation."""


class RankingAnswer(Answer):
    """Items, best first."""

    items: list[Item]


class RecommendAnswer(RankingAnswer):
    """The items nearest to a profile."""

    profile: Profile
    unread: str
    """The end of the text that the embedder does not read, empty where it reads all."""


class PartEffect(Said):
    """What a part of a profile does to an item."""

    text: str
    start: int
    end: int
    effect: float
    """The item's score less its score without the part; above 0, the part lifts the item."""
    rank_without: int
    similarity: float
    """Cosine of the item and the part alone."""


class NearItem(NamedItem):
    """An item of the history, and how near it is to the explained one."""

    similarity: float


class ExplainAnswer(Answer):
    """Why an item stands where it does."""

    item: Item
    num_ranked: int
    """How many items are ranked."""
    parts: list[PartEffect]
    history: list[NearItem]
    """Those that are not ranked, the nearest first."""
    unread: str


class Move(NamedItem):
    """An item's place before and after edits."""

    rank_before: int
    rank_after: int
    rise: int
    """Places that it went up, below 0 for down."""
    score_before: float
    score_after: float


class SteerAnswer(Answer):
    """The ranking before and after edits."""

    profile_before: Profile
    profile_after: Profile
    before: list[Item]
    after: list[Item]
    moves: list[Move]
    """Of all items that are in one of the two lists: those of `after`, then those that left."""
    unread: str


class ItemsAnswer(Answer):
    """Items that a search found."""

    items: list[NamedItem]


class Scale(Said):
    """The lowest and the highest rating."""

    low: float
    high: float


class InfoAnswer(Answer):
    """What is served."""

    method: str
    """The paper's name of what was trained."""
    num_items: int
    num_users: int
    rating_scale: Scale
    has_policy: bool
    """Whether profiles can be written."""
    limits: Mapping[str, int]


class ReloadAnswer(Answer):
    """Whether other models are served now."""

    reloaded: bool


class HealthAnswer(Said):
    """Whether the server lives, or is ready."""

    status: Literal["alive", "ready"]


class ErrorAnswer(Said):
    """Why there is no other answer."""

    error: str
    """One sentence or more, for a person."""
    error_type: str
    """One word, for a program."""


class ConflictAnswer(ErrorAnswer):
    """The profile has another version than was expected."""

    current: Version | None
