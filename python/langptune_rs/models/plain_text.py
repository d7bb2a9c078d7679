"""Text from users and catalogs is text for every tokenizer, also where it spells a control token such as <|im_end|>.

A tokenizer finds its added tokens in whatever it is given. So what it makes of a text is looked at: a text that holds
no control token, which is nearly every text, keeps its tokens. One that spells control tokens is cut inside each of
them, and its pieces are read one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from transformers import AddedToken, PreTrainedTokenizerBase

_BRACKETS = frozenset({("<", ">"), ("[", "]"), ("{", "}"), ("|", "|"), ("｜", "｜"), ("◁", "▷")})
"""How the marks of models begin and end. Some tokenizers do not say that they are special, such as Qwen's <think>."""
_AFTER_A_WORD = ("a", ".", "0", "\n")
_AFTER_A_SIGN = (".", "a", "0", "\n")
"""What may stand before a text that is read as the rest of a longer one, in the order in which it is tried."""
_PROBES = ("aB", "0")
"""Two texts that show what is set around any text, and whether it is changed."""


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
        self._frames: dict[str, _Frame] = {}

    def rows(self, texts: Sequence[str], limit: int, prompt: str = "") -> list[list[int]]:
        """The ids of each text after the prompt, with their frame, cut to `limit` tokens.

        The prompt is the model's own or the recipe's, so its control tokens stay what they are.
        """
        own = self._own_rows(list(texts), prompt)
        if prompt not in self._frames:
            self._frames[prompt] = self._frame(prompt)
        frame = self._frames[prompt]
        return [
            row
            if self.controls(row) == frame.controls and not self.spells_unknown(text)
            else self._row(frame, text, row, limit)
            for text, row in zip(texts, own, strict=True)
        ]

    def _row(self, frame: _Frame, text: str, own: list[int], limit: int) -> list[int]:
        if frame.reads is not None and self._spells_control(frame.joined + text + frame.after):
            ids = frame.reads(text)
        elif self.controls(middle := _middle(frame, own)):
            ids = self._spelled_out(middle)
        else:
            return own
        room = max(0, limit - len(frame.left) - len(frame.right))
        kept = ids[:room] if self.tokenizer.truncation_side == "right" else ids[len(ids) - min(room, len(ids)) :]
        return [*frame.left, *kept, *frame.right]

    def _frame(self, prompt: str) -> _Frame:
        """What is set around a text, as two texts show.

        The prompt is joined to the text or in a turn of its own, and signs of a chat template may be one token with the
        text, such as a space before it. The text is read as at its start, or as the rest of what stands before it.
        """
        rows = self._own_rows([*_PROBES], prompt)
        controls = self.controls(rows[0])
        shared = _num_shared(*rows), _num_shared(*(row[::-1] for row in rows))
        for joined, after in dict.fromkeys(((prompt, ""), ("", ""), self._signs_joined(rows[0], shared))):
            for before in ("", _AFTER_A_SIGN[0]):
                reads = partial(self._joined_ids, joined, after, before)
                plain, other = map(reads, _PROBES)
                for start in range(len(rows[0]) - len(plain) + 1):
                    left, right = rows[0][:start], rows[0][start + len(plain) :]
                    if rows == [[*left, *plain, *right], [*left, *other, *right]]:
                        return _Frame(left, right, controls, joined, after, reads)
        num_left = shared[0]
        num_right = min(shared[1], min(map(len, rows)) - num_left)
        return _Frame(rows[0][:num_left], rows[0][len(rows[0]) - num_right :], controls)

    def _joined_ids(self, joined: str, after: str, before: str, text: str) -> list[int]:
        """The ids of a text between what is one text with it, of which only `joined` may hold control tokens."""
        if self._spells_control(joined):
            return self.encode(joined) + self.ids(text + after, joined[-1:])
        return self.ids(joined + text + after, before)

    def _signs_joined(self, row: list[int], shared: tuple[int, int]) -> tuple[str, str]:
        """The signs before and after the first probe in the tokens of its row that the other's row does not share."""
        own = str(self.tokenizer.decode(row[shared[0] : len(row) - shared[1]]))
        start = max(0, own.lower().find(_PROBES[0].lower()))
        return own[:start], own[start + len(_PROBES[0]) :]

    def _spelled_out(self, ids: Sequence[int]) -> list[int]:
        """The ids of a text with each control token spelled out in its place.

        This is for a text that is changed before the tokenizer reads it, such as by a template that writes lower case.
        Spaces that a control token took in are lost.
        """
        return [
            i
            for token in ids
            for i in (self.ids(self.spelled[token], _AFTER_A_SIGN[0]) if token in self.control_ids else [token])
        ]


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer sets around a text."""

    left: list[int]
    right: list[int]
    """The ids before the text and after it."""
    controls: list[int]
    """The control tokens of both, and of the prompt."""
    joined: str = ""
    """The text before it that is read with it, such as a prompt."""
    after: str = ""
    """The text after it that is read with it."""
    reads: Callable[[str], list[int]] | None = None
    """Gives the ids between both of a text; None where the tokenizer reads a text in a way of its own."""


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


def _middle(frame: _Frame, row: list[int]) -> list[int]:
    """A row without the frame."""
    start = _num_shared(row, frame.left)
    end = len(row) - min(_num_shared(row[::-1], frame.right[::-1]), len(row) - start)
    return row[start:end]


def _num_shared(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((place for place, (own, other) in pairs if own != other), min(len(ids), len(others)))


def _occurrences(part: str, text: str) -> Iterator[tuple[int, int]]:
    start = text.find(part)
    while start >= 0:
        yield start, start + len(part)
        start = text.find(part, start + 1)
