"""How items and sessions become text: the forms of the paper's appendix B, one set of words for each domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from langptune_rs.errors import DataError


@dataclass(frozen=True)
class Template:
    """The words for one domain. A field that an item lacks is left out, never printed as "None"."""

    name: str
    things: str
    """What the items are called in the instruction."""

    @property
    def instruction(self) -> str:
        """The prompt for generation of appendix B."""
        return (
            f"The user has rated (out of 5.0) and reviewed following {self.things} arranged chronologically from the "
            "oldest (top) to the newest (bottom). Please provide a high-level summary of the user preference in detail."
        )

    def title(self, title: str) -> str:
        return f"Title: {title}"

    def item(
        self,
        title: str,
        description: str | None = None,
        categories: Sequence[str] | None = None,
        price: float | None = None,
        average_rating: float | None = None,
    ) -> str:
        """An item's text: title, description with the average rating, categories and price, one line each."""
        described = [f"(average rating: {average_rating:.1f})"] if average_rating is not None else []
        described += [description] if description else []
        lines = [
            self.title(title),
            f"Description: {' '.join(described)}" if described else "",
            f"Category: {', '.join(categories)}" if categories else "",
            f"Price: {price:g}" if price is not None else "",
        ]
        return "\n".join(line for line in lines if line)

    def session(
        self, items: Sequence[str], ratings: Sequence[float | None], reviews: Sequence[str | None]
    ) -> str:
        """The history, oldest first: each item's text and what the user said of it."""
        blocks = []
        for text, rating, review in zip(items, ratings, reviews, strict=True):
            rated = f"(rating: {rating:.1f})" if rating is not None and not math.isnan(rating) else ""
            said = " ".join(part for part in (rated, review) if part)
            blocks.append(f"{text}\nReview from the user: {said}" if said else text)
        return "\n\n".join(blocks)

    def prompt(
        self,
        items: Sequence[str],
        ratings: Sequence[float | None],
        reviews: Sequence[str | None],
        *,
        instruction: str | None = None,
        closing: str = "",
    ) -> str:
        """The message to the policy: the instruction (the template's own by default), the history, the closing words."""
        parts = (self.instruction if instruction is None else instruction, self.session(items, ratings, reviews), closing)
        return "\n\n".join(part for part in parts if part)


TEMPLATES = {
    template.name: template
    for template in (
        Template("movies", "movies and TV shows"),
        Template("products", "products"),
        Template("items", "items"),
    )
}


def get_template(name: str) -> Template:
    """The template of that name. Raises `DataError` naming those there are."""
    if name not in TEMPLATES:
        raise DataError(f"There is no text template {name!r}. Choose one of {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]
