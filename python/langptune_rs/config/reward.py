"""What a reward may say: a sum of weighted terms, such as `ndcg + 0.05 log_softmax - 0.1 copied`."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

TERMS = {
    "ndcg": "NDCG over the whole catalog, in (0, 1]; `ndcg@k` counts the first k places",
    "mrr": "1 / rank; `mrr@k` counts the first k places",
    "log_rank": "-ln rank, at most 0",
    "log_softmax": "ln of the target's share in a softmax of the scores of the whole catalog, at most 0",
    "length": "the tokens of the profile over `profile.max_tokens`, in [0, 1]",
    "copied": "the share of the profile's words in runs of three or more that stand in titles of the history",
    "repetition": "the share of the profile's runs of three words that it has written before",
}
"""Every term of a reward, and what it is. `rollout/reward.py` computes them."""
WITH_CUT = ("ndcg", "mrr")
"""Terms that may be cut at k."""
BELOW_ZERO = ("log_rank", "log_softmax")
"""Terms that are never above 0 and have no lower limit."""
GRAMMAR = "a sum of terms, each a name with an optional weight before it, such as ndcg + 0.05 log_softmax - 0.1 copied"

SMALLEST, LARGEST = 1e-6, 1e6
"""The weights that there can be, whatever their signs: far beyond, the square of a reward is 0 or infinite."""

_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SIGN = re.compile(r"((?<![\d.][eE])[+-])")
_NAME = re.compile(r"(\w+)(?:@([1-9]\d{0,17}))?", re.ASCII)
_WITHOUT_SPACE = re.compile(rf"({_NUMBER.pattern})([A-Za-z]\w*)(.*)", re.ASCII)
_WITH_HYPHEN = re.compile("|".join(name.replace("_", "-") for name in TERMS if "_" in name), re.IGNORECASE)


@dataclass(frozen=True)
class Term:
    """A term of a reward."""

    weight: float
    """From `SMALLEST` to `LARGEST`, or that below 0."""
    name: str
    """A key of `TERMS`."""
    k: int | None = None
    """Places that count; None for all."""

    @property
    def lowest(self) -> float:
        """What the weighted term cannot fall below; minus infinity where there is no such limit."""
        if self.name in BELOW_ZERO:
            return -math.inf if self.weight > 0 else 0.0
        return min(self.weight, 0.0)

    @property
    def title(self) -> str:
        """How the term is written without its weight."""
        return self.name if self.k is None else f"{self.name}@{self.k}"


def parse_reward(text: str) -> tuple[Term, ...]:
    """The terms of a reward, in their order.

    >>> parse_reward("ndcg@20 - 0.1 * copied")
    (Term(weight=1.0, name='ndcg', k=20), Term(weight=-0.1, name='copied', k=None))

    Raises `ValueError`, which says what is allowed and names the nearest term.
    """
    if hyphened := _WITH_HYPHEN.search(text):
        raise _no_term(hyphened[0])
    first, *rest = _SIGN.split(text)
    signed = rest if rest and not first.strip() else ["+", first, *rest]
    terms = tuple(_term(sign, summand) for sign, summand in zip(signed[::2], signed[1::2], strict=True))
    for title in {term.title: None for term in terms}:
        weights = [term.weight for term in terms if term.title == title]
        if abs(sum(weights)) < SMALLEST:
            raise ValueError(f"the weights of {title} add up to nothing: leave it out, or write it once")
    return terms


def _term(sign: str, summand: str) -> Term:
    """The term of a sign and a text such as `0.1 * copied`."""
    match re.sub(r"\s*@\s*", "@", summand.replace("*", " * ")).split():
        case [written]:
            weight = "1"
            if (joined := _WITHOUT_SPACE.fullmatch(written)) and joined[2] in TERMS:
                raise ValueError(
                    f"{written!r} has no space behind its weight: write {joined[1]} {joined[2]}{joined[3]}"
                )
        case [name, "*", number] | [name, number] if _NUMBER.fullmatch(number) and name.partition("@")[0] in TERMS:
            cut = f", or {name}@{number} for a cut" if name in WITH_CUT and number.isdecimal() else ""
            raise ValueError(f"{summand.strip()!r} has its weight behind the term: write {number} {name}{cut}")
        case [weight, "*", written] | [weight, written] if written != "*":
            pass
        case _:
            found = f"{summand.strip()!r} is no term" if summand.strip() else "a term is missing"
            raise ValueError(f"{found}; a reward is {GRAMMAR}")
    name, k = _name_and_cut(written)
    if not _NUMBER.fullmatch(weight):
        raise ValueError(
            f"{weight!r} before {written} is no number that can be its weight, and two terms have + or - between them; "
            f"a reward is {GRAMMAR}"
        )
    value = float(sign + weight)
    if not SMALLEST <= abs(value) <= LARGEST:
        raise ValueError(
            f"{written} has the weight {weight}: write a number from {SMALLEST:.6f} to {LARGEST:,.0f}, or leave the "
            "term out"
        )
    return Term(value, name, k)


def _name_and_cut(written: str) -> tuple[str, int | None]:
    """`ndcg@20` as `ndcg` and 20."""
    name, at, _ = written.partition("@")
    if name not in TERMS:
        raise _no_term(name)
    if at and name not in WITH_CUT:
        raise ValueError(f"{written} has a cut, which only {' and '.join(WITH_CUT)} may have: write {name}")
    if not (cut := _NAME.fullmatch(written)):
        raise ValueError(f"{written} has no cut that can be: write {name}, or {name}@20 with a whole number from 1 on")
    return name, int(cut[2]) if cut[2] else None


def _no_term(name: str) -> ValueError:
    near = difflib.get_close_matches(name.lower(), TERMS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return ValueError(f"there is no term {name!r} ({hint}there are {', '.join(TERMS)}); a reward is {GRAMMAR}")
