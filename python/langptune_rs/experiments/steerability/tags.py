"""Tags: what an edit asks for more or less of. A tag is a category of the catalog, or a word of its descriptions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from langptune_rs.errors import InputError, nearest
from langptune_rs.experiments.compare.guards import FUNCTION_WORDS, scrub, title_words
from langptune_rs.seeds import generator

STRATA = ("rare", "medium", "common")
LEAST_RECURRENCE = 0.4
"""How many of the items that have a word must have it twice."""
UNRELATED = 0.1
"""Two tags are unrelated when the correlation of having them, over the items, is nearer to 0 than this."""
_LETTERS = re.compile(r"[^\W\d_]+")
_SHORTEST = 4


@dataclass(frozen=True, eq=False)
class Tag:
    """What items may have in common.

    Attributes:
        name: as edits write it.
        kind: where it comes from.
        words: its words in lower case, with their plurals, which scrubbing removes.
        has: bool (num_items,), which items have it.
        stratum: how frequent it is; empty for one that was asked for by name.
    """

    name: str
    kind: Literal["category", "word"]
    words: frozenset[str]
    has: NDArray[np.bool_]
    stratum: str = ""

    @property
    def num_items(self) -> int:
        """Items that have it."""
        return int(self.has.sum())

    def scrubbed(self, text: str) -> str:
        """A text without the tag's words."""
        return scrub(text, self.words)


def matrix(tags: Sequence[Tag]) -> NDArray[np.bool_]:
    """Which items have which tag, bool (tags, num_items)."""
    return np.stack([tag.has for tag in tags])


def unrelated(tags: Sequence[Tag]) -> NDArray[np.bool_]:
    """Which tags are unrelated to which, bool (tags, tags), symmetric; by the phi coefficient over the items."""
    has = matrix(tags).astype(np.float64)
    centred = has - has.mean(axis=1, keepdims=True)
    sd = np.sqrt((centred**2).sum(axis=1))
    found: NDArray[np.bool_] = np.abs(centred @ centred.T) < UNRELATED * np.outer(sd, sd)
    return found


def all_tags(items: pl.DataFrame) -> dict[str, Tag]:
    """Every category of the items, and every word that recurs in its items, by name.

    A word has four letters or more, and is no function word. It recurs: of the items that have it in their title or
    description, at least two in five have it twice. Words that say what an item is do that, such as binder, and words
    that any item may have do not, such as perfect (Church, 2000, calls it adaptation). Singular and plural are one
    word.

    Args:
        items: title, description and categories of each item, in the order of the catalog.
    """
    num_items = items.height
    having: dict[str, list[int]] = {}
    for place, categories in enumerate(items["categories"].to_list()):
        for category in dict.fromkeys(categories or ()):
            having.setdefault(category, []).append(place)
    tags = {
        _written(name): Tag(_written(name), "category", _forms(title_words(name)), _mask(places, num_items))
        for name, places in having.items()
        if title_words(name)
    }
    for word, places in _recurring_words(items).items():
        if word not in tags:
            tags[word] = Tag(word, "word", _forms([word]), _mask(places, num_items))
    return tags


def draw_tags(items: pl.DataFrame, per_stratum: int, min_items: int, seed: int) -> list[Tag]:
    """Tags of each stratum of frequency, drawn from the seed; as many categories as words, where there are enough.

    The strata divide the range from `min_items` to half of the items at equal ratios. Tags that more items have are
    left out, since most of a list has them anyway.

    Raises `InputError` where the catalog has no tag of as many items.
    """
    most = items.height // 2
    edges = np.geomspace(min_items, max(min_items, most), len(STRATA) + 1)
    candidates = [tag for tag in all_tags(items).values() if min_items <= tag.num_items <= most]
    if not candidates:
        raise InputError(
            f"no category and no word of descriptions is shared by {min_items} items or more, and by no more than "
            f"half of the {items.height}: lower --min-items, or name tags with --tag"
        )
    drawn: list[Tag] = []
    for number, stratum in enumerate(STRATA):
        inside = [tag for tag in candidates if np.searchsorted(edges[1:-1], tag.num_items, side="right") == number]
        inside.sort(key=lambda tag: (tag.kind, tag.name))
        order = generator(seed, "steerability", "tags", number).permutation(len(inside))
        by_kind: dict[str, list[Tag]] = {"category": [], "word": []}
        for place in order:
            by_kind[inside[place].kind].append(inside[place])
        categories, words = by_kind["category"], by_kind["word"]
        num_categories = min(len(categories), max(-(-per_stratum // 2), per_stratum - len(words)))
        chosen = [*categories[:num_categories], *words[: per_stratum - num_categories]]
        drawn += [Tag(tag.name, tag.kind, tag.words, tag.has, stratum) for tag in chosen]
    return drawn


def named_tags(items: pl.DataFrame, names: Iterable[str], min_items: int) -> list[Tag]:
    """The tags of these names, in upper or lower case: a category, or else any word of a title or description.

    Raises `InputError`, with the nearest name, for a tag that no item has, or that fewer items have or lack than
    `min_items`, and for one that is named twice.
    """
    tags = {tag.name.casefold(): tag for tag in all_tags(items).values()}
    found: dict[str, Tag] = {}
    for name in names:
        key = name.strip().casefold()
        tag = tags.get(key) or _word_tag(items, key)
        if tag is None:
            known = [tag.name for tag in tags.values() if tag.num_items >= min_items]
            raise InputError(f"no item has the tag {name!r}, as a category or a word of its text.{nearest(key, known)}")
        if tag.num_items == items.height:
            raise InputError(
                f"all {items.height} items have the tag {name!r}, so that no list can have more or less of it: name "
                "another one"
            )
        if not min_items <= tag.num_items <= items.height - min_items:
            raise InputError(
                f"{tag.num_items} of {items.height} items have the tag {name!r}: at least {min_items} must have it, "
                f"and {min_items} must not; name another one, or lower --min-items"
            )
        if tag.name in found:
            raise InputError(f"the tag {name!r} is named twice: leave one out")
        found[tag.name] = tag
    return list(found.values())


def _written(category: str) -> str:
    """A category in a sentence: "Comedy" is comedy, and "Sci-Fi" stays."""
    return category if any(letter.isupper() for letter in category[1:]) else category.lower()


def _forms(words: Iterable[str]) -> frozenset[str]:
    """Words with their regular singular and plural."""
    found = set(words)
    for word in tuple(found):
        found |= {f"{word}s", f"{word}es"}
        if word.endswith("y"):
            found.add(f"{word[:-1]}ies")
        if word.endswith("s") and len(word) > _SHORTEST:
            found.add(word[:-1])
    return frozenset(found)


def _mask(places: Iterable[int], num_items: int) -> NDArray[np.bool_]:
    mask = np.zeros(num_items, dtype=bool)
    mask[list(places)] = True
    return mask


def _texts(items: pl.DataFrame) -> list[str]:
    return [
        f"{title or ''}\n{text or ''}" for title, text in items.select("title", "description").iter_rows(named=False)
    ]


def _recurring_words(items: pl.DataFrame) -> dict[str, list[int]]:
    """The items of every word of `all_tags`, in the singular where the catalog has both forms."""
    counts = [Counter(word.lower() for word in _LETTERS.findall(text)) for text in _texts(items)]
    vocabulary = {word for count in counts for word in count}
    having: dict[str, list[int]] = {}
    twice: Counter[str] = Counter()
    for place, count in enumerate(counts):
        folded: Counter[str] = Counter()
        for word, number in count.items():
            is_plural = word.endswith("s") and word[:-1] in vocabulary and len(word) > _SHORTEST
            folded[word[:-1] if is_plural else word] += number
        for word, number in folded.items():
            having.setdefault(word, []).append(place)
            twice[word] += number > 1
    return {
        word: places
        for word, places in having.items()
        if len(word) >= _SHORTEST and word not in FUNCTION_WORDS and twice[word] >= LEAST_RECURRENCE * len(places)
    }


def _word_tag(items: pl.DataFrame, words: str) -> Tag | None:
    """The tag of any words that stand in texts, whether they recur or not. None where no item has them all."""
    wanted = [_forms([word]) for word in title_words(words)]
    if not wanted:
        return None
    has = np.array([all(forms & title_words(text) for forms in wanted) for text in _texts(items)])
    return Tag(words, "word", frozenset().union(*wanted), has) if has.any() else None
