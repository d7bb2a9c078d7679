"""What a person changes of a profile, as values: each edit makes a new profile of one and leaves that one as it was.

An edit is a new text, a sentence less, a sentence that counts more or less, or a request beside the text. Undoing an
edit is taking the profile before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from langptune_rs.errors import InputError
from langptune_rs.recommending.sentences import nth_sentence, parts_of, without

MAX_WEIGHT = 5.0
"""The greatest weight of a sentence or a request. With more of it, a ranking is by that sentence alone."""


@dataclass(frozen=True)
class Profile:
    """A profile as the recommender reads it: a text, and what a person set beside it.

    Attributes:
        text: what the policy or a person wrote.
        weights: how much a sentence counts, by its text: 1 is as written, 0 as if it were not there.
        requests: texts with a weight, whose embeddings are added to the profile's.
    """

    text: str
    weights: Mapping[str, float] = field(default_factory=dict)
    requests: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile | str) -> Profile:
        """The same profile, or that of a text."""
        return profile if isinstance(profile, Profile) else cls(profile)


@dataclass(frozen=True)
class Rewrite:
    """The text is another one: a person's own, or one that the policy proposed and the person confirmed.

    Sentences that stay as they were keep their weight.
    """

    text: str

    def __call__(self, profile: Profile) -> Profile:
        """The profile with this text. Raises `InputError` for a text of white space."""
        if not self.text.strip():
            raise InputError("the edit leaves an empty profile: write at least a word about what the user likes")
        left = {part.text for part in parts_of(self.text)}
        return replace(profile, text=self.text, weights={s: w for s, w in profile.weights.items() if s in left})


@dataclass(frozen=True)
class Remove:
    """A sentence, by its number from 1, is taken out of the text."""

    sentence: int

    def __call__(self, profile: Profile) -> Profile:
        """The profile without the sentence. Raises `InputError` when there is none, or no other."""
        part = nth_sentence(profile.text, self.sentence)
        left = without(profile.text, [part])
        if not left:
            raise InputError(
                f"sentence {self.sentence} is all that the profile says: write another text instead of removing it"
            )
        return Rewrite(left)(profile)


@dataclass(frozen=True)
class Weigh:
    """A sentence, by its number from 1, counts `weight` times as much as it does in the text as written.

    Above 1 strengthens the wish, below 1 weakens it, and 0 ranks as if the sentence were not there.
    """

    sentence: int
    weight: float

    def __call__(self, profile: Profile) -> Profile:
        """The profile with the weight. Raises `InputError` when there is no such sentence, or the weight is no number
        from 0 to `MAX_WEIGHT`."""
        if not 0 <= self.weight <= MAX_WEIGHT:
            raise InputError(
                f"the weight {self.weight:g} of sentence {self.sentence} is not from 0 to {MAX_WEIGHT:g}: "
                "1 leaves a sentence as it is, 2 doubles what it does, 0.5 halves it"
            )
        part = nth_sentence(profile.text, self.sentence)
        weights = {**profile.weights, part.text: float(self.weight)}
        return replace(profile, weights={s: w for s, w in weights.items() if w != 1})


@dataclass(frozen=True)
class Request:
    """A wish beside the text, whose embedding is added to the profile's with a weight; a weight below 0 is for less of
    it, and 0 takes it back.

    This is how CTRL-Rec (arXiv 2510.12742) steers a recommender that has no profile to edit.
    """

    text: str
    weight: float = 1.0

    def __call__(self, profile: Profile) -> Profile:
        """The profile with the request. Raises `InputError` for a text of white space, or a weight that is no number
        from -`MAX_WEIGHT` to `MAX_WEIGHT`."""
        if not self.text.strip():
            raise InputError("the request is empty: write what there should be more or less of")
        if not -MAX_WEIGHT <= self.weight <= MAX_WEIGHT:
            raise InputError(
                f"the weight {self.weight:g} of the request {self.text!r} is not from {-MAX_WEIGHT:g} to "
                f"{MAX_WEIGHT:g}: at 1 it counts as much as the whole profile"
            )
        requests = {**profile.requests, self.text: float(self.weight)}
        return replace(profile, requests={r: w for r, w in requests.items() if w})


Edit = Rewrite | Remove | Weigh | Request
