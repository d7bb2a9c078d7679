"""What a person writes into a profile to get more or less of a tag, and the control of each edit.

There are five kinds of edits. An increase is appended, rewritten or requested; a decrease is negated (which appends
it), deleted, rewritten or requested. All but a deletion come in three strengths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langptune_rs.experiments.steerability.controls import filler_aside, filler_sentences, num_words
from langptune_rs.experiments.steerability.protocol import REQUEST_WEIGHTS, STRENGTHS, Direction
from langptune_rs.experiments.steerability.tags import Tag
from langptune_rs.recommending.edits import Profile
from langptune_rs.recommending.sentences import Part, parts_of, without
from langptune_rs.seeds import generator

SIGNS: dict[Direction, int] = {"increase": 1, "decrease": -1}

APPENDED: dict[Direction, dict[int, str]] = {
    "increase": {
        1: "They also like {tag} a little.",
        2: "They also like {tag} and want more of it.",
        3: "Above all they love {tag}, and want much more of it than of anything else.",
    },
    "decrease": {
        1: "They like {tag} a little less than other things.",
        2: "They do not like {tag} and want less of it.",
        3: "They hate {tag}, and never want to see any of it again.",
    },
}
"""What an edit appends to a profile, by direction and strength."""

INSERTED: dict[Direction, dict[int, str]] = {
    "increase": {
        1: "{tag} a little, and also",
        2: "{tag} and more of it, and also",
        3: "{tag} above all, much more of it than of anything else, and also",
    },
    "decrease": {
        1: "{tag} a little less than other things, and otherwise",
        2: "no {tag} and wants less of it, but",
        3: "no {tag} at all and never wants to see any of it, but",
    },
}
"""What a rewrite says first, between "The user likes" and the rest of the profile."""

REQUEST = APPENDED["increase"][2]
"""The text of a request. For less of a tag it is subtracted."""

_OPENING = re.compile(
    r"\s*(?:the|this|a|an)\s+[\w-]+\s+(?:also\s+)?(?:likes?|enjoys?|prefers?|loves?|wants?|appreciates?)\b\s*:?\s*",
    re.IGNORECASE,
)
"""The words with which a profile begins, such as "The user likes", with a colon behind them."""
_BETWEEN_CLAUSES = re.compile(r"[,;:]\s+|\s+(?=(?:and|but|or)\s)")


@dataclass(frozen=True)
class TagEdit:
    """A profile edited for more or less of a tag, beside its control.

    Attributes:
        tag: the place of the tag among those measured.
        kind: append, negate, delete, rewrite or request.
        direction: what the person wants of the tag.
        strength: 1 to 3; a deletion has only 1.
        edited: the profile after the edit.
        control: the profile that effects are measured from: as long, in the same form, and with the same meaning as
            the profile before the edit. That of a deletion lacks another clause of about the same length.
    """

    tag: int
    kind: str
    direction: Direction
    strength: int
    edited: Profile
    control: Profile


Similarities = Callable[[Sequence[str], str], NDArray[np.float64]]
"""How near each of several texts is to another one, by a judge."""


def edits_of(text: str, tags: Sequence[Tag], judge: Similarities, *seed: int | str) -> list[TagEdit]:
    """Every edit of a profile for every tag, by tag, kind, direction and strength.

    A deletion takes the clause that the judge finds nearest to the tag (a sentence, where the profile has several). A
    profile of one clause has none. `seed` chooses the words of controls, and is one for all tags.
    """
    fillers = _Fillers(text, seed)
    parts = clauses_of(text)
    return [
        edit
        for number, tag in enumerate(tags)
        for edit in (*_worded(text, number, tag, fillers), *_deletion(text, parts, number, tag, judge, seed))
    ]


def clauses_of(text: str) -> list[Part]:
    """The sentences of a profile; of a single sentence its clauses, which end at commas, semicolons and colons, and
    before "and", "but" and "or"."""
    sentences = parts_of(text)
    if len(sentences) != 1:
        return sentences
    found, start = [], sentences[0].start
    for border in [*_BETWEEN_CLAUSES.finditer(text, start, sentences[0].end), None]:
        end = sentences[0].end if border is None else border.start()
        if text[start:end].strip():
            found.append(Part(text[start:end], start, end))
        start = end if border is None else border.end()
    return found


def rewritten(text: str, wish: str, appended: str, tag: Tag | None) -> str:
    """The profile with a wish in its first sentence, before all else that it likes; without the words of a tag that it
    shall not name any more. One that does not begin like "The user likes" gets the sentence `appended` in front."""
    opening = _OPENING.match(text)
    rest = text[opening.end() :] if opening else text
    rest = tag.scrubbed(rest) if tag else rest
    if not opening:
        return f"{appended} {rest}".strip()
    return f"{opening.group().strip().removesuffix(':').rstrip()} {wish} {rest}".strip()


class _Fillers:
    """The controls of worded edits. Those of equal length are one text, whatever the tag is."""

    def __init__(self, text: str, seed: Sequence[int | str]):
        self._text, self._seed = text, seed

    def appended(self, length: int) -> str:
        return f"{self._text} {self.sentences(length)}".strip()

    def inserted(self, length: int) -> str:
        opening = _OPENING.match(self._text)
        if not opening:
            return f"{self.sentences(length)} {self._text}".strip()
        head = opening.group().strip().removesuffix(":").rstrip()
        return f"{head}, {filler_aside(length, self._random(length))}, {self._text[opening.end() :]}".strip()

    def sentences(self, length: int) -> str:
        return filler_sentences(length, self._random(length))

    def _random(self, length: int) -> np.random.Generator:
        return generator(*self._seed, "filler", length)


def _worded(text: str, number: int, tag: Tag, fillers: _Fillers) -> Iterator[TagEdit]:
    """The edits that say something of a tag."""
    for direction, sentences in APPENDED.items():
        for strength in STRENGTHS:
            sentence = sentences[strength].format(tag=tag.name)
            wish = INSERTED[direction][strength].format(tag=tag.name)
            request, weight = REQUEST.format(tag=tag.name), SIGNS[direction] * REQUEST_WEIGHTS[strength]
            appended = Profile(f"{text} {sentence}".strip())
            yield TagEdit(
                number,
                "append" if direction == "increase" else "negate",
                direction,
                strength,
                appended,
                Profile(fillers.appended(num_words(sentence))),
            )
            yield TagEdit(
                number,
                "rewrite",
                direction,
                strength,
                Profile(rewritten(text, wish, sentence, tag if direction == "decrease" else None)),
                Profile(fillers.inserted(num_words(wish if _OPENING.match(text) else sentence))),
            )
            yield TagEdit(
                number,
                "request",
                direction,
                strength,
                Profile(text, requests={request: weight}),
                Profile(text, requests={fillers.sentences(num_words(request)): weight}),
            )


def _deletion(
    text: str, parts: Sequence[Part], number: int, tag: Tag, judge: Similarities, seed: Sequence[int | str]
) -> Iterator[TagEdit]:
    """The deletion of the part that is nearest to a tag; none where there is one part."""
    if len(parts) < 2:
        return
    named = int(np.argmax(judge([part.text for part in parts], tag.name)))
    other = alike(parts, named, *seed, "deleted", tag.name)
    yield TagEdit(
        number,
        "delete",
        "decrease",
        1,
        Profile(without(text, [parts[named]])),
        Profile(without(text, [parts[other]])),
    )


def alike(parts: Sequence[Part], chosen: int, *seed: int | str) -> int:
    """Another part that is as long as the chosen one, or nearest to that: in words, then in characters; one of several
    by the seed."""
    length, size = num_words(parts[chosen].text), len(parts[chosen].text)
    order = generator(*seed).permutation(len(parts))
    return int(
        min(
            (place for place in order if place != chosen),
            key=lambda place: (abs(num_words(parts[place].text) - length), abs(len(parts[place].text) - size)),
        )
    )
