"""Text from users and catalogs is text for every tokenizer, also where it spells a control token such as <|im_end|>.

A tokenizer finds its added tokens in whatever it is given. So what it makes of a text is looked at: a text that holds
no control token, which is nearly every text, keeps its tokens. One that spells control tokens is cut inside each of
them, and its pieces are read one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

from transformers import AddedToken, PreTrainedTokenizerBase

from langptune_rs.errors import ModelError

_BRACKETS = frozenset({("<", ">"), ("[", "]"), ("{", "}"), ("|", "|"), ("｜", "｜"), ("◁", "▷")})
"""How the marks of models begin and end. Some tokenizers do not say that they are special, such as Qwen's <think>."""
_AFTER_A_WORD = ("a", ".", "0", "\n")
_AFTER_A_SIGN = (".", "a", "0", "\n")
"""What may stand before a text that is read as the rest of a longer one, in the order in which it is tried."""


class PlainText:
    """A tokenizer that makes no control token of a text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, frame: str = ""):
        """`frame` is the text of a template: what it writes of the tokenizer's added tokens is a control token too."""
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        self.spelled = {i: token.content for i, token in added.items() if _is_control(token, frame)}
        """Every control token and how it is spelled."""
        self.spelled |= {i: content for i, content in special if content.strip()}
        for i in [i for i, content in self.spelled.items() if len(content) == 1 and i in self._as_text(content)]:
            del self.spelled[i]  # such as a ! that pads: the sign has no other token
        self._unknown = _unknown_id(tokenizer)
        self.control_ids = frozenset(self.spelled) - {self._unknown}
        """The tokens that no text may become. Without the one for what is unknown, which a text may hold."""

    def controls(self, ids: Iterable[int]) -> list[int]:
        """The control tokens among `ids`, in their order."""
        return [i for i in ids if i in self.control_ids]

    def encode(self, text: str) -> list[int]:
        """The tokenizer's own ids of a text, control tokens included."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def spells_unknown(self, text: str) -> bool:
        """Whether a text spells the token for what is unknown, such as [UNK]."""
        return self._unknown is not None and self.spelled.get(self._unknown, "\0") in text

    def _spells_control(self, text: str) -> bool:
        return bool(self.controls(self.encode(text))) or self.spells_unknown(text)

    def ids(self, text: str, before: str = "") -> list[int]:
        """The ids of a text without a control token. `before` is the text that it continues; empty where it starts."""
        found = self.continued(text, before)
        if not self.controls(found) and not self.spells_unknown(text):
            return found
        if len(text) == 1:
            return self._as_text(text)
        places = self._places_to_cut(text) or range(1, len(text))
        ends = [0, *places, len(text)]
        return [i for start, end in pairwise(ends) for i in self.ids(text[start:end], (before + text[:start])[-1:])]

    def continued(self, text: str, before: str) -> list[int]:
        """The tokenizer's own ids of a text that comes after `before`: as inside of a text, not as at its start."""
        if not before:
            return self.encode(text)
        for anchor in _AFTER_A_WORD if before[-1].isalnum() else _AFTER_A_SIGN:
            start, whole = self.encode(anchor), self.encode(anchor + text)
            if start and whole[: len(start)] == start:
                return whole[len(start) :]
        return self.encode(text)

    def _as_text(self, sign: str) -> list[int]:
        """The ids of one character that is a control token as well."""
        ids: list[int] = self.tokenizer.encode(sign, add_special_tokens=False, split_special_tokens=True)
        return ids

    def _places_to_cut(self, text: str) -> list[int]:
        """Places inside of every control token that a text spells, and around those of one character."""
        places = set()
        for start, end in self._spans(text):
            places |= {start + 1} if end - start > 1 else {start, end}
        return sorted(places - {0, len(text)})

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where control tokens are spelled in a text, without the spaces that some of them take in."""
        for start, end in self._matches(text):
            spelled = text[start:end]
            start += len(spelled) - len(spelled.lstrip())
            yield start, start + len(spelled.strip())

    def _matches(self, text: str) -> Iterator[tuple[int, int]]:
        if not self.tokenizer.is_fast:
            for spelled in self.spelled.values():
                yield from _occurrences(spelled, text)
            return
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for i, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if i in self.control_ids or (i == self._unknown and self.spells_unknown(text[start:end])):
                yield start, end


class FramedText(PlainText):
    """A tokenizer that sets control tokens around a text, such as [CLS] and [SEP], and makes none of the text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: Callable[[list[str], str], list[list[int]]]):
        """`rows` gives the ids of texts after a prompt, with what is set around each; where a text spells control
        tokens, they are among them."""
        super().__init__(tokenizer)
        self._own_rows = rows
        self._frames: dict[str, _Frame | None] = {}

    def rows(self, texts: Sequence[str], limit: int, prompt: str = "") -> list[list[int]]:
        """The ids of each text after the prompt, with their frame, cut to `limit` tokens.

        The prompt is the model's own or the recipe's, so its control tokens stay what they are. Raises `ModelError`
        for a text of which control tokens are made whatever is done.
        """
        own = self._own_rows(list(texts), prompt)
        if prompt not in self._frames:
            self._frames[prompt] = self._frame(prompt)
        frame = self._frames[prompt]
        if frame is None:  # nothing but the frame is kept, or the frame depends on the text
            return self._without_frame(texts, own, prompt)
        return [
            row
            if self.controls(row) == frame.controls and not self.spells_unknown(self._as_read(text))
            else self._row(frame, self._as_read(text), row, limit)
            for text, row in zip(texts, own, strict=True)
        ]

    @cached_property
    def _lowers(self) -> bool:
        """Whether texts are lower-cased before the tokenizer reads them."""
        small, large = self._own_rows(["a", "A"], "")
        return small == large and self.encode("a") != self.encode("A")

    def _as_read(self, text: str) -> str:
        return text.lower() if self._lowers else text

    def _row(self, frame: _Frame, text: str, own: list[int], limit: int) -> list[int]:
        if not self._spells_control(frame.joined + text):
            return own
        if self._spells_control(frame.joined):
            ids = self.continued(frame.joined, frame.before) + self.ids(text, frame.joined[-1:])
        else:
            ids = self.ids(frame.joined + text, frame.before)
        room = max(0, limit - len(frame.left) - len(frame.right))
        kept = ids[:room] if self.tokenizer.truncation_side == "right" else ids[len(ids) - min(room, len(ids)) :]
        return [*frame.left, *kept, *frame.right]

    def _frame(self, prompt: str) -> _Frame | None:
        """What is set around a text, as two texts show: with the prompt joined to the text, or in a turn of its own.

        Some tokenizers read the start of a text in another way than the same text further on.
        """
        framed, other_framed = self._own_rows(["a", "0"], prompt)
        for joined, before in product(dict.fromkeys((self._as_read(prompt), "")), ("", "\n", "a")):
            plain, other = self.continued(joined + "a", before), self.continued(joined + "0", before)
            for start in range(len(framed) - len(plain) + 1):
                left, right = framed[:start], framed[start + len(plain) :]
                if framed == [*left, *plain, *right] and other_framed == [*left, *other, *right]:
                    return _Frame(left, right, joined, before, self.controls(framed))
        return None

    def _without_frame(self, texts: Sequence[str], own: Sequence[list[int]], prompt: str) -> list[list[int]]:
        """The rows of texts whose frame is not known: spaces break the control tokens that a text spells."""
        allowed = Counter(self.controls(self._own_rows(["a"], prompt)[0]))
        rows = []
        for text, row in zip(map(self._as_read, texts), own, strict=True):
            if self._spells_control(text):
                row = self._own_rows([self._broken(text, self._places_to_cut(text))], prompt)[0]
            if Counter(self.controls(row)) - allowed:
                row = self._own_rows([self._broken(text, range(1, len(text)))], prompt)[0]
            if excess := Counter(self.controls(row)) - allowed:
                raise ModelError(
                    f"The tokenizer {self.tokenizer.name_or_path!r} makes {', '.join(self.spelled[i] for i in excess)} "
                    f"of a text, however it is written: {text[:80]!r}. That would not be read as text: choose another "
                    "embedder."
                )
            rows.append(row)
        return rows

    def _broken(self, text: str, places: Iterable[int]) -> str:
        """A text with a space at each place, and instead of each control token of one character."""
        ends = [0, *places, len(text)]
        return " ".join(
            text[start:end] for start, end in pairwise(ends) if not self.controls(self.encode(text[start:end]))
        )


@dataclass(frozen=True)
class _Frame:
    """The ids before and after a text, the prompt that is one text with it, what both are read as standing after (empty
    at the start of a text), and the control tokens of all of them."""

    left: list[int]
    right: list[int]
    joined: str
    before: str
    controls: list[int]


def is_mark(text: str) -> bool:
    """Whether a text stands in brackets, as marks of models do."""
    return len(text) > 2 and (text[0], text[-1]) in _BRACKETS


def _is_control(token: AddedToken, frame: str) -> bool:
    """Whether an added token is more than a word or a space: special, in brackets, or a sign that the template writes.

    Some tokenizers add words, runs of spaces or line feeds, which are text wherever they stand.
    """
    content = token.content.strip()
    if is_mark(content):
        return True
    is_written = content in frame and not all(c.isalnum() or c.isspace() for c in content)
    return bool(content) and (token.special or is_written)


def _unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token for what is unknown; None where there is none or where it is a mark as well."""
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
    return None if tokenizer.unk_token_id in marks else tokenizer.unk_token_id


def _occurrences(part: str, text: str) -> Iterator[tuple[int, int]]:
    start = text.find(part)
    while start >= 0:
        yield start, start + len(part)
        start = text.find(part, start + 1)
