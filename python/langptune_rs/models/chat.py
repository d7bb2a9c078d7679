"""Talking with a policy: from a user's message to token ids, and from the ids that it answers to a profile.

Control tokens of a prompt come from the chat template alone. A message is text, whatever it spells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from transformers import PreTrainedTokenizerBase

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.models import thoughts
from langptune_rs.models.chat_template import ChatTemplate
from langptune_rs.models.plain_text import PlainText, is_mark


class Chat:
    """The tokenizer and the chat template of a policy.

    Attributes:
        eos_ids: every token that ends the model's turn: those that the model and its tokenizer name, and the one that
            the template writes after an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PolicyConfig, named_ids: Iterable[int]):
        """`named_ids` are the end-of-turn ids of the model's generation config.

        Raises `ModelError` for a template that cannot be used, and where nothing says how a turn ends.
        """
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, config)
        self._text = PlainText(tokenizer, self._template.source)
        frame = self._template.frame
        self._own_controls = self._text.controls(self._text.encode("".join(frame)))
        self._opened = thoughts.opened(frame.after)
        self._marks = {i: text for i, text in self._text.spelled.items() if text in thoughts.ALL}
        named = {*named_ids, tokenizer.eos_token_id} - {None}
        self.eos_ids = frozenset(self._with_end_of_turn(cast(set[int], named)))

    def encode_prompt(self, user_message: str) -> list[int]:
        """Token ids of a one-turn chat with `user_message`, ready for the model's answer."""
        before, message, after = self._template.prompt(user_message)
        ids = self._text.encode(before + message + after)
        if self._text.controls(ids) == self._own_controls and not self._text.spells_unknown(message):
            return ids
        return [
            *self._text.encode(before),
            *self._text.ids(message, before),
            *self._text.continued(after, before + message),
        ]

    def decode(self, tokens: list[int]) -> str:
        """The text of a profile, without control tokens and without what the model thought before it."""
        if tokens and tokens[-1] in self.eos_ids:  # not every tokenizer says that it is special
            tokens = tokens[:-1]
        text, start = self._opened, 0
        for place, token in enumerate(tokens):
            if token in self._marks:
                text += self._plain(tokens[start:place]) + self._marks[token]
                start = place + 1
        return thoughts.without_thoughts(text + self._plain(tokens[start:])).strip()

    def _plain(self, tokens: list[int]) -> str:
        return cast(str, self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _with_end_of_turn(self, named: set[int]) -> set[int]:
        """`named` with the control token that the template writes after an answer, or else before the next message."""
        end = self._template.after_answer().strip()
        found = self._first_control(end)
        if found is None and is_mark(end.partition("\n")[0]) and end != self._template.frame.after.strip():
            raise self._template.refusal_of_end(end, len(self._text.encode(end)))
        if found is None:
            found = self._first_control(self._template.before_next_message())
        if found is None and not named:
            raise self._template.refusal_without_end()
        return named if found is None else {*named, found}

    def _first_control(self, text: str) -> int | None:
        return next((i for i in self._text.encode(text) if i in self._text.spelled), None)
