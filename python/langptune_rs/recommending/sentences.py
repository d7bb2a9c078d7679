"""The parts of a profile that a person edits and that an explanation names: its sentences, or its words."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, cast, get_args

from sentencex import segment

from langptune_rs.errors import InputError

By = Literal["sentence", "word"]


def by_name(name: str) -> By:
    """A kind of part by its name. Raises `InputError` for another name."""
    if name not in get_args(By):
        raise InputError(f"a profile has no parts called {name!r}: choose {' or '.join(get_args(By))}")
    return cast(By, name)


@dataclass(frozen=True)
class Part:
    """A sentence or a word of a profile: its text, which is `profile[start:end]`."""

    text: str
    start: int
    end: int


def parts_of(profile: str, by: By = "sentence") -> list[Part]:
    """The sentences or words of a profile, in order. All of the profile but white space is in one of them.

    A line break ends a sentence, so that the lines of a list are sentences. What else does is for `sentencex` to say,
    which knows the abbreviations and the full stops of many languages.
    """
    if by == "word":
        return [Part(found.group(), *found.span()) for found in re.finditer(r"\S+", profile)]
    parts: list[Part] = []
    for line in re.finditer(r"[^\r\n]+", profile):
        start = line.start()
        for text in segment("en", line.group()):
            bare = text.strip()
            if bare:
                first = start + len(text) - len(text.lstrip())
                parts.append(Part(bare, first, first + len(bare)))
            start += len(text)
    return parts


def without(profile: str, parts: Collection[Part]) -> str:
    """The profile without some of its parts, and without the space that stood before each of them."""
    kept, end = [], 0
    for part in sorted(parts, key=lambda part: part.start):
        kept.append(profile[end : part.start].rstrip())
        end = part.end
    return "".join([*kept, profile[end:]]).strip()


def nth_sentence(profile: str, number: int) -> Part:
    """A profile's sentence by its number, counted from 1. Raises `InputError` when there is none."""
    sentences = parts_of(profile)
    if not 1 <= number <= len(sentences):
        have = "1 sentence" if len(sentences) == 1 else f"{len(sentences)} sentences"
        raise InputError(f"there is no sentence {number}: the profile has {have}, counted from 1")
    return sentences[number - 1]
