"""What a person changes of a profile, as values: each edit makes a new profile of one and leaves that one as it was.

An edit is a new text, a sentence less, a sentence that counts more or less, or a request beside the text. Undoing an
edit is taking the profile before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from langptune_rs.errors import InputError
from langptune_rs.recommending.sentences import nth_sentence, parts_of, without

MAX_WEIGHT = 5.0
"""The greatest weight of a sentence or a request. With more of it, a ranking is by that sentence alone."""


def is_blank(text: str) -> bool:
    """Whether a text has no character that is seen."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def check_text(text: str) -> None:
    """Raise `InputError` for a text with half a character, as an argument in another encoding has it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start + 1} of the text {text[:40]!r} is only a part of one: give the text in UTF-8"
        ) from None


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
        if is_blank(self.text):
            raise InputError("the edit leaves an empty profile: write at least a word about what the user likes")
        check_text(self.text)
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
                f"without sentence {self.sentence} nothing is left of the profile: write another text instead"
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
        if is_blank(self.text):
            raise InputError("the request is empty: write what there should be more or less of")
        check_text(self.text)
        if not -MAX_WEIGHT <= self.weight <= MAX_WEIGHT:
            raise InputError(
                f"the weight {self.weight:g} of the request {self.text!r} is not from {-MAX_WEIGHT:g} to "
                f"{MAX_WEIGHT:g}: at 1 it counts as much as the whole profile"
            )
        requests = {**profile.requests, self.text: float(self.weight)}
        return replace(profile, requests={r: w for r, w in requests.items() if w})


Edit = Rewrite | Remove | Weigh | Request


def edits_of(
    *,
    rewrite: str | None = None,
    instruct: str | None = None,
    remove: Sequence[int] | None = None,
    weigh: Sequence[str] | None = None,
    request: Sequence[str] | None = None,
) -> list[Edit]:
    """Edits as a person types them: sentence numbers, `NUMBER=WEIGHT`, and `TEXT=WEIGHT` or a text that weighs 1.

    All numbers are those of the profile before the edits, so there are none with a new text. `instruct` is only
    counted: what it makes of the profile is a rewrite.

    Raises `InputError` for no edit, edits that exclude each other, or a text that has not this form.
    """
    new_text = [name for name, text in (("rewrite", rewrite), ("instruct", instruct)) if text is not None]
    numbered = [name for name, given in (("remove", remove), ("weigh", weigh)) if given]
    if not new_text and not numbered and not request:
        raise InputError("there is no edit: give a text, an instruction, a sentence to remove or weigh, or a request")
    if len(new_text) > 1 or (new_text and numbered):
        raise InputError(
            f"{' and '.join([*new_text, *numbered])} do not go together: sentences are counted in the profile "
            "before it has a new text. Give one of them, and the other on what comes out of it"
        )
    return [
        *([] if rewrite is None else [Rewrite(rewrite)]),
        *(_weigh(text) for text in weigh or ()),
        *(Remove(number) for number in sorted(set(remove or ()), reverse=True)),
        *(_request(text) for text in request or ()),
    ]


def _weigh(text: str) -> Weigh:
    number, _, weight = text.partition("=")
    try:
        return Weigh(int(number), float(weight))
    except ValueError:
        raise InputError(f"{text!r} is no weight of a sentence: write NUMBER=WEIGHT, such as 2=0.5") from None


def _request(text: str) -> Request:
    wish, equals, weight = text.rpartition("=")
    if not equals:
        return Request(text)
    try:
        return Request(wish, float(weight))
    except ValueError:
        raise InputError(
            f"{text!r} is no request: write TEXT or TEXT=WEIGHT, such as 'musicals=0.5'. Where the text itself has an "
            "equals sign, write its weight too: 'a=b=1'"
        ) from None
