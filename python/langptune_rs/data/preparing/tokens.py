"""The lengths of texts in tokens of the models that will read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class TokenCounter(Protocol):
    """Counts the tokens of texts by one tokenizer."""

    @property
    def name(self) -> str:
        """Identifies the tokenizer in `dataset.toml`."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The number of tokens of each text, uint32 (n,)."""


@dataclass(frozen=True)
class TokenCounters:
    """What counts tokens. `langptune_rs.models.tokens.token_counters` makes one for two models."""

    items: TokenCounter
    """The embedder's tokens of an item's text, with its special tokens."""
    histories: TokenCounter
    """The policy's tokens of a history."""
