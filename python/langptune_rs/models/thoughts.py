"""What a model that thinks writes before its answer, between marks such as <think> and </think>."""

from __future__ import annotations

import re

MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""How the families of models begin and end a thought."""
OPENING = tuple(opening for opening, _ in MARKS)
ALL = frozenset(mark for pair in MARKS for mark in pair)

_WHOLE = [re.compile(f"{re.escape(opening)}.*?(?:{re.escape(closing)}|\\Z)", re.DOTALL) for opening, closing in MARKS]


def opened(prompt: str) -> str:
    """The mark of a thought that a prompt begins and leaves to the model to end; empty where there is none."""
    for opening, closing in MARKS:
        if prompt.rfind(opening) > prompt.rfind(closing):
            return opening
    return ""


def without_thoughts(text: str) -> str:
    """A text without its thoughts.

    One that has no end goes on to the end of the text, and one without a beginning starts with the text.
    """
    for whole, (_, closing) in zip(_WHOLE, MARKS, strict=True):
        text = whole.sub("", text)
        text = text.rpartition(closing)[2]
    return text
