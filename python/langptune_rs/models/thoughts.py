"""What a model that thinks writes before its answer, between marks such as <think> and </think>."""

from __future__ import annotations

import re

MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<Thought>", "</Thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
"""How the families of models begin and end a thought."""
ANSWER_MARKS = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<Output>", "</Output>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|begin_of_box|>", "<|end_of_box|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
"""How some of them begin and end the answer after it."""
ALL = frozenset(mark for pair in MARKS for mark in pair)
"""Every mark of a thought."""

_WHOLE = [re.compile(f"{re.escape(opening)}.*?(?:{re.escape(closing)}|\\Z)", re.DOTALL) for opening, closing in MARKS]
_AROUND_AN_ANSWER = re.compile("|".join(re.escape(mark) for pair in ANSWER_MARKS for mark in pair))


def opened(prompt: str) -> str:
    """The mark of a thought that a prompt begins and leaves to the model to end; empty where there is none."""
    for opening, closing in MARKS:
        if prompt.rfind(opening) > prompt.rfind(closing):
            return opening
    return ""


def without_thoughts(text: str) -> str:
    """A text without its thoughts, and without the marks around its answer.

    A thought that has no end goes on to the end of the text, and one without a beginning starts with the text.
    """
    for whole, (_, closing) in zip(_WHOLE, MARKS, strict=True):
        text = whole.sub("", text)
        text = text.rpartition(closing)[2]
    return _AROUND_AN_ANSWER.sub("", text)
