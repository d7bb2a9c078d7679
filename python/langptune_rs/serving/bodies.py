"""What a request may say, and how much of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from langptune_rs.data.readers.cleaning import is_encodable
from langptune_rs.errors import InputError, nearest
from langptune_rs.recommending import edits
from langptune_rs.recommending.edits import MAX_WEIGHT
from langptune_rs.recommending.sentences import By, parts_of

MAX_PROFILE = 4_000
"""Characters of a profile."""
MAX_HISTORY = 100
"""Items of a history."""
MAX_K = 1_000
"""Items of an answer."""
MAX_REVIEW = 2_000
MAX_NAME = 500
"""Characters of the id or title of an item, of a request beside a profile, and of an instruction."""
MAX_ID = 200
"""Characters of a user's id, and of the name of who makes a change."""
MAX_EDITS = 50
MAX_WEIGHTS = 100
MAX_REQUESTS = 20
MAX_PARTS = 200
"""Sentences or words of a profile that is explained."""
MAX_PAGE = 200
"""Entries of a page of a list."""
MAX_NUMBER = 2**31 - 1
"""Of a version, or of entries before a page."""

Policy = Literal["trained", "untrained"]


def whole(text: str) -> str:
    """The text. Raises `ValueError` for one that UTF-8, or a database of texts, cannot hold."""
    if "\0" in text:
        raise ValueError("a text cannot hold the character NUL")
    if not is_encodable(text):
        raise ValueError("a text cannot hold half a surrogate pair")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    return text


ProfileText = Annotated[str, Field(min_length=1, max_length=MAX_PROFILE), AfterValidator(whole)]
ReviewText = Annotated[str, Field(max_length=MAX_REVIEW), AfterValidator(whole)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(whole)]
UserId = Annotated[str, Field(min_length=1, max_length=MAX_ID), AfterValidator(whole)]
Wish = Annotated[Name, AfterValidator(_not_blank)]
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]
RequestWeight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
Names = Annotated[list[Name], Field(max_length=MAX_HISTORY)]
Number = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
K = Annotated[int, Field(ge=1, le=MAX_K)]


class Body(BaseModel):
    """What all bodies have in common: no key that is not known, no text for a number, no number that is none."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True, use_attribute_docstrings=True
    )


class ProfileBody(Body):
    """A profile: a text, and what a person set beside it."""

    text: ProfileText
    weights: Annotated[dict[ProfileText, Weight], Field(max_length=MAX_WEIGHTS)] = {}
    """How much a sentence counts, by its text: 1 is as written, 0 as if it were not there."""
    requests: Annotated[dict[Wish, RequestWeight], Field(max_length=MAX_REQUESTS)] = {}
    """Wishes beside the text with a weight; below 0 is for less of them."""

    def profile(self) -> edits.Profile:
        """The profile as the recommender reads it.

        Raises `InputError` for an empty text, and for a weight of a sentence that the text does not have.
        """
        if not self.text.strip():
            raise InputError("the profile is empty: write at least a word about what the user likes")
        sentences = [part.text for part in parts_of(self.text)] if self.weights else []
        for weighed in self.weights:
            if weighed not in sentences:
                raise InputError(
                    f"weights has the sentence {_shown(weighed)}, which is not in the profile."
                    f"{nearest(weighed, sentences[:MAX_PARTS])} Sentences are weighed by their text."
                )
        return edits.Profile(
            self.text,
            {sentence: weight for sentence, weight in self.weights.items() if weight != 1},
            {wish: weight for wish, weight in self.requests.items() if weight},
        )


class RankingBody(Body):
    """A profile, and what is not ranked by it."""

    profile: ProfileBody
    user: UserId | None = None
    """The items of this user's history are not ranked."""
    exclude: Names = []
    """Ids or titles of items that are not ranked, such as a history."""


class RecommendBody(RankingBody):
    """What to recommend."""

    k: K = 20


class ExplainBody(RankingBody):
    """What to explain: what every part of the profile does to an item."""

    item: Name
    """The id or title of an item."""
    by: By = "sentence"


class Rewrite(Body):
    """The text is another one."""

    kind: Literal["rewrite"]
    text: ProfileText

    def edit(self) -> edits.Edit:
        """The edit as the recommender does it."""
        return edits.Rewrite(self.text)


class Remove(Body):
    """A sentence is taken out."""

    kind: Literal["remove"]
    sentence: Number
    """Counted from 1."""

    def edit(self) -> edits.Edit:
        """The edit as the recommender does it."""
        return edits.Remove(self.sentence)


class Weigh(Body):
    """A sentence counts more or less."""

    kind: Literal["weigh"]
    sentence: Number
    """Counted from 1."""
    weight: Weight

    def edit(self) -> edits.Edit:
        """The edit as the recommender does it."""
        return edits.Weigh(self.sentence, self.weight)


class Request(Body):
    """A wish beside the text."""

    kind: Literal["request"]
    text: Wish
    weight: RequestWeight = 1.0

    def edit(self) -> edits.Edit:
        """The edit as the recommender does it."""
        return edits.Request(self.text, self.weight)


Edit = Annotated[Rewrite | Remove | Weigh | Request, Field(discriminator="kind")]


class SteerBody(RankingBody):
    """Edits of a profile, done one after the other."""

    edits: Annotated[list[Edit], Field(min_length=1, max_length=MAX_EDITS)]
    k: K = 20


class HistoryItem(Body):
    """An item that a user chose."""

    item: Name
    """The id or title."""
    rating: float | None = None
    """On the scale of the data set."""
    review: ReviewText | None = None


class WriteBody(Body):
    """Whose profile to write: that of a user of the data, or of a history. Exactly one of the two is given."""

    user: UserId | None = None
    history: Annotated[list[HistoryItem], Field(min_length=1, max_length=MAX_HISTORY)] | None = None
    """The oldest first."""
    policy: Policy = "trained"

    @model_validator(mode="after")
    def _has_one(self) -> WriteBody:
        if (self.user is None) == (self.history is None):
            raise ValueError("give either a user or a history")
        return self


class ProposeBody(Body):
    """A profile to rewrite by an instruction, such as "less horror"."""

    text: ProfileText
    instruction: Wish


class ChangeBody(Body):
    """Who changes a profile, and of which version."""

    expected_version: Number
    """The version that the change is made of, 0 for none. Where it is not the current one, nothing is changed."""
    changed_by: UserId = "anonymous"


class PutBody(ChangeBody):
    """A new version of a user's profile."""

    profile: ProfileBody


LIMITS = {
    "profile_characters": MAX_PROFILE,
    "history_items": MAX_HISTORY,
    "k": MAX_K,
    "review_characters": MAX_REVIEW,
    "name_characters": MAX_NAME,
    "edits": MAX_EDITS,
    "weights": MAX_WEIGHTS,
    "requests": MAX_REQUESTS,
    "explained_parts": MAX_PARTS,
    "page_entries": MAX_PAGE,
}
"""The limits that the server tells."""


def _shown(text: str, length: int = 80) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")
