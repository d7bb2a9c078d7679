"""Ratings of any scale as those of 0 to 5 stars, which prompts speak of."""

from __future__ import annotations

from typing import TypeVar

import polars as pl

from langptune_rs.config.data import STARS, RatingScale

Rating = TypeVar("Rating", pl.Expr, float)

_USUAL = (1.0, 5.0, 10.0, 20.0, 100.0, 1000.0)
"""The highest ratings of usual scales."""


def in_stars(rating: Rating, scale: RatingScale) -> Rating:
    """A rating of a scale, or a column of them, on that from 0 to 5. What is on it already stays as it is."""
    if scale == STARS:
        return rating
    return (rating - scale.low) * scale.stars_per_point


def from_stars(rating: float, scale: RatingScale) -> float:
    """A rating from 0 to 5 on the scale that it was given on: what `in_stars` undoes."""
    return rating if scale == STARS else rating / scale.stars_per_point + scale.low


def scale_advice(rating: float) -> str:
    """What to do about a rating that is not on its scale."""
    high = next((high for high in _USUAL if abs(rating) <= high), None)
    scale = "LOW-HIGH" if high is None else str(RatingScale(-high if rating < 0 else 0.0, high))
    return (
        f"If the ratings have another scale, give it, such as --rating-scale {scale} (rating_scale in a recipe's "
        "[data]): they are then brought to 0-5. If this one is wrong, mend the line. --on-bad-line skip would leave "
        "out every rating that is not on the scale."
    )
