"""The interface of every method that is compared: it is fitted to a data set and ranks a catalog for sessions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from langptune_rs import ItemIndex
from langptune_rs.config import RunConfig
from langptune_rs.config.section import Section
from langptune_rs.data import Dataset, Sessions
from langptune_rs.errors import DataError

if TYPE_CHECKING:
    from langptune_rs.baselines.run_models import RunModels

Decoding = Literal["greedy", "sampled"]
"""How profiles are written."""
Need = Literal["ratings", "embedder", "policy", "trained embedder", "trained policy"]
"""What a method requires: ratings in the data, a model of the recipe, or a model that a run has trained."""


class ScoredSessions(NamedTuple):
    """How a method ranks the targets of N sessions, by S rankings each: one, or one for each sampled profile."""

    ranks: NDArray[np.int64]
    """1-based ranks among the items outside the history, int64 (N, S)."""
    log_probs: NDArray[np.float64] | None = None
    """ln softmax(similarity / LIKELIHOOD_TEMPERATURE) of the targets among the same items, float64 (N, S).

    None for a method whose scores are no similarities, or that has none.
    """


class NoConfig(Section):
    """The configuration of a method that has nothing to set."""


class Method(ABC):
    """Something that ranks a catalog for a session.

    Adding one is one file with a subclass, and one line in `registry.py`.
    """

    name: ClassVar[str]
    """The method's name in the paper's tables."""
    Config: ClassVar[type[Section]] = NoConfig
    """The section of settings that `fit` takes; its defaults are the paper's (appendix C).

    The evaluation of a run fits with the defaults. Whoever compares methods at other settings passes them to `fit`.
    """
    version: ClassVar[int] = 1
    """Counts up when a method learns or ranks otherwise, by more than rounding, so that what an experiment keeps of an
    earlier one does not stand beside what is new."""
    group: ClassVar[str] = "ID-based"
    """Which methods it stands with in a table: Simple, ID-based, Text-based or Profile-based."""
    grid: ClassVar[Mapping[str, Sequence[object]]] = {}
    """Settings to try on validation: the values of each field of `Config` that is tuned; their product is the grid."""
    trial: ClassVar[Mapping[str, object]] = {}
    """Settings that make a fit short, for a method whose whole fits take too long to choose by: the grid is tried with
    them, and the best of it is fitted without. None where the grid is tried with whole fits."""
    learns_from_histories: ClassVar[bool] = False
    """Whether `fit` learns from the histories of validation and test beside the train sessions (footnotes 1 and 2)."""
    stops_on_validation: ClassVar[bool] = False
    """Whether `fit` chooses by the validation sessions when to stop, so that it needs some."""
    uses_seed: ClassVar[bool] = True
    """Whether another seed may rank otherwise."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    decodings: ClassVar[tuple[Decoding, ...]] = ()
    """The ways of writing that it can be ranked in; none for a method that writes nothing."""
    reads_with_trained: ClassVar[bool] = False
    """Whether it uses the embedder that a run has trained."""

    @abstractmethod
    def fit(self, dataset: Dataset, config: Any, seed: int, checkpoint: Path | None = None) -> None:
        """Learn from the train sessions of `dataset`, and from the histories of the others (footnotes 1 and 2).

        `config` is a `Config`. The same seed gives the same method. The targets of validation may decide when to stop,
        as settings are chosen by them, and nothing else; those of test are never looked at. A method that trains for
        minutes keeps its state in the file `checkpoint`, and goes on from what it finds there.
        """

    @property
    def unfinished(self) -> str:
        """What a reader must know of a fit that reached a limit before it was done, a sentence; empty for others.

        It is known after `fit`, and not of a method that was opened.
        """
        return ""

    @abstractmethod
    def score_targets(self, sessions: Sessions) -> ScoredSessions:
        """The rank of every session's target among the items outside its history, and what else is known of it."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learned into `folder`, which exists."""

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """The method that `save` wrote, for the data set that it was fitted to."""

    @classmethod
    def choices(cls, config: Any) -> Mapping[str, Sequence[object]]:
        """What is tried on validation where a comparison would fit with `config`, a `Config`: fields and their values.

        It is `grid`, and what depends on the models that `config` names; a field of an inner section is named with a
        dot. One value alone is what the field has unless somebody sets it. Raises `ModelError` for a model that cannot
        be found.
        """
        return cls.grid

    @classmethod
    def accompanies(cls, config: RunConfig) -> bool:
        """Whether the evaluation of a run shows this method: it costs next to nothing, or the run trained it."""
        return False

    @classmethod
    def of_run(cls, models: RunModels, decoding: Decoding = "greedy") -> Self:
        """The method that accompanies a run: fitted to its data with the paper's settings and the run's seed.

        `decoding` is one of `decodings`, where there are any. Raises what `check_data` raises.
        """
        method = cls()
        method.check_data(models.run.dataset)
        method.fit(models.run.dataset, cls.Config(), models.run.config.seed)
        return method

    @classmethod
    def check_data(cls, dataset: Dataset) -> None:
        """Raise `DataError` when the data set lacks what the method needs."""
        if "ratings" in cls.needs and np.isnan(dataset.sessions.ratings).all():
            raise DataError(
                f"The method {cls.name} needs ratings, but this data set has none. Leave the method out, or prepare "
                "the data from a log with ratings."
            )


class VectorMethod(Method):
    """A method that gives a vector for every item and for every session; the largest dot product ranks first."""

    @property
    @abstractmethod
    def item_vectors(self) -> NDArray[np.float32]:
        """Vectors of all items, float32 (n_items, dim)."""

    @abstractmethod
    def session_vectors(self, sessions: Sessions) -> NDArray[np.float32]:
        """Vectors of sessions, float32 (N, dim), from their histories."""

    def score_targets(self, sessions: Sessions) -> ScoredSessions:
        """See `Method.score_targets`, (N, 1). Between two items with the same score the smaller index ranks first.

        A dot product may be of any scale, so no log-probabilities are made of it.
        """
        index = ItemIndex(self.item_vectors)
        ranks = index.rank(self.session_vectors(sessions), sessions.targets, exclude=sessions.histories)
        assert isinstance(ranks, np.ndarray)  # one target for each session
        return ScoredSessions(ranks[:, None])
