"""Whether a method of this project is as good as the same model of another library."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRIC = "ndcg@20"
LEAST_ERRORS = 2.0
"""A difference of fewer standard errors may be chance."""
TOLERANCE = 0.05
"""The share of the other's score that ours may be behind."""


@dataclass(frozen=True)
class Outcome:
    """Two models' scores of the same sessions."""

    ours: float
    """The mean score of this project's method."""
    theirs: float
    """The mean score of the library's model."""
    error: float
    """The standard error of the difference of the two means; sessions of one user count as one draw."""

    @property
    def difference(self) -> float:
        """Ours less theirs."""
        return self.ours - self.theirs

    @property
    def verdict(self) -> str:
        """`better` or `as good`, or `worse`: neither within two standard errors nor within 5% of theirs."""
        if self.difference > LEAST_ERRORS * self.error and self.difference > 0:
            return "better"
        if self.difference >= -max(LEAST_ERRORS * self.error, TOLERANCE * self.theirs):
            return "as good"
        return "worse"


def compare_scores(ours: NDArray[np.floating], theirs: NDArray[np.floating], users: NDArray[np.integer]) -> Outcome:
    """The outcome of scores (T,) of the same T sessions, whose users are (T,)."""
    return Outcome(float(ours.mean()), float(theirs.mean()), clustered_error(ours - theirs, users))


def clustered_error(values: NDArray[np.floating], clusters: NDArray[np.integer]) -> float:
    """Standard error of the mean of values (T,) that are independent only between clusters, whose numbers are (T,).

    sqrt(G / (G - 1) * sum over the G clusters of (sum of their deviations from the mean)^2) / T, the usual estimate
    (Cameron and Miller, 2015, section II.B); with one value in each cluster that is the usual standard error. Infinite
    for one cluster, which says nothing of others.
    """
    _, numbers = np.unique(clusters, return_inverse=True)
    sums = np.bincount(numbers, weights=values - values.mean())
    if len(sums) < 2:
        return math.inf
    return math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums)) / len(values)
