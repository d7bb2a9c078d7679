"""How items, histories and instructions are written for the models (section 4.1 and appendix B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from langptune_rs.data.text import shorten
from langptune_rs.errors import DataError

_FALLBACK_TITLE_LENGTH = 60

HistoryText = Literal["full", "brief"]


@dataclass(frozen=True)
class Item:
    """What is known of an item. Every field may be missing, but not all texts at once."""

    title: str | None = None
    description: str | None = None
    categories: Sequence[str] = ()
    price: str | None = None
    average_rating: float | None = None


class PromptOptions(Protocol):
    """The part of a run's configuration that shapes a prompt."""

    instruction: str | None
    closing: str
    history_text: HistoryText


@dataclass(frozen=True)
class PromptStyle:
    """Shape of a prompt; the default is the paper's."""

    instruction: str | None = None
    """Told before the history; none takes the template's own words."""
    closing: str = ""
    """Asked again after the history."""
    history_text: HistoryText = "full"
    """Each history item's whole text, or one line with its title and categories."""


PAPER_STYLE = PromptStyle()


@dataclass(frozen=True)
class Template:
    """The wording for one domain."""

    name: str
    instruction: str
    """What the policy is asked to do."""

    @staticmethod
    def item_text(item: Item) -> str:
        """The text of an item that the embedder reads and a full history shows; missing fields are left out."""
        rating = None if item.average_rating is None else f"(average rating: {round(item.average_rating, 2)})"
        description = " ".join(part for part in (rating, item.description) if part)
        fields = {
            "Title": item.title,
            "Description": description,
            "Category": ", ".join(item.categories),
            "Price": item.price,
        }
        return "\n".join(f"{label}: {value}" for label, value in fields.items() if value)

    @staticmethod
    def item_title(item: Item) -> str:
        """The title, or the first words of what else is known of an item that has none."""
        return item.title or shorten(item.description or ", ".join(item.categories), _FALLBACK_TITLE_LENGTH)

    @classmethod
    def item_line(cls, item: Item) -> str:
        """An item in one line, for short prompts: its title and its categories."""
        title = cls.item_title(item)
        return f"- {title}: {', '.join(item.categories)}" if item.categories and item.title else f"- {title}"

    def prompt(self, history: Sequence[str], style: PromptOptions = PAPER_STYLE) -> str:
        """The message to the policy: the instruction, then the history of `history_entry` texts, oldest first."""
        parts = (style.instruction or self.instruction, *history, style.closing)
        return "\n\n".join(part for part in parts if part)


def domain_of(name):
    return "movies"


def history_entry(text: str, rating: float | None, review: str | None, history_text: HistoryText = "full") -> str:
    """An item's text with the user's rating and review below it (behind it in brief), where there are any."""
    said = " ".join(part for part in ("" if rating is None else f"(rating: {round(rating, 2)})", review) if part)
    between = "\nReview from the user: " if history_text == "full" else " "
    return f"{text}{between}{said}" if said else text


_DOMAINS = {
    "movies": ("movies and TV shows", "watched"),
    "products": ("products", "bought"),
    "generic": ("items", "chosen"),
}
"""Per template: what the items are, and what the user did with them where nothing more is known."""


def make_template(name: str, *, has_ratings: bool, has_reviews: bool) -> Template:
    """The template `name` for data with or without ratings and reviews.

    With both and `movies` the instruction is that of appendix B, letter for letter; data that lacks one of them is
    not said to have it. Raises `DataError` for an unknown name.
    """
    if name not in _DOMAINS:
        raise DataError(f"There is no template {name!r}. Choose one of {', '.join(_DOMAINS)}.")
    items, contact = _DOMAINS[name]
    if has_ratings and has_reviews:
        did = "rated (out of 5.0) and reviewed"
    else:
        did = ("rated (out of 5.0)" if has_ratings else "reviewed" if has_reviews else contact) + " the"
    return Template(
        name,
        f"The user has {did} following {items} arranged chronologically from the oldest (top) to the newest "
        "(bottom). Please provide a high-level summary of the user preference in detail.",
    )
