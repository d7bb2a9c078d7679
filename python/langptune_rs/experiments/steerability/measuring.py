"""What each edit does to the ranking of a few sessions, less what its control does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from langptune_rs import ItemIndex
from langptune_rs.evaluation.metrics import from_ranks
from langptune_rs.evaluation.steerability import Ranks, exposures, mean_ranks, pool_aucs, tag_aucs
from langptune_rs.experiments.steerability.catalogs import TaggedCatalog
from langptune_rs.experiments.steerability.edits import SIGNS, Similarities, TagEdit, edits_of
from langptune_rs.experiments.steerability.protocol import AS_IS, POOL_SIZE, SCRUBBED, Texts
from langptune_rs.experiments.steerability.tags import Tag, matrix, unrelated
from langptune_rs.recommending.edits import Profile
from langptune_rs.recommending.vectors import profile_vectors
from langptune_rs.seeds import generator

ANOTHER_USER = "another user"
"""The kind of the rows that compare a user's profile with that of another user. Nobody edits anything."""

COLUMNS = pl.Schema(
    {
        "session_id": pl.Int64(),
        "user_id": pl.String(),
        "tag": pl.String(),
        "kind": pl.String(),
        "direction": pl.String(),
        "strength": pl.Int64(),
        "texts": pl.String(),
        **dict.fromkeys(
            (
                *("auc", "auc_raw", "auc_control", "pool", "pool_raw", "exposure", "exposure_raw"),
                *("moved", "moved_unrelated", "unrelated_edit", "ndcg"),
            ),
            pl.Float64(),
        ),
    }
)
"""One row for each session, tag, edit, strength and kind of item texts.

- auc, pool, exposure: by how much the tag's AUC over the catalog, its AUC in the pool of SteerEval and its share of the
  first k items changed in the direction that was wanted, by the edited profile less the control.
- auc_raw, pool_raw, exposure_raw: the same less the profile before the edit, without a control.
- auc_control: that of the control less the profile before the edit, in the direction that was wanted.
- moved, moved_unrelated: how far the AUC of the tag moved in either direction, and the mean of that over unrelated
  tags.
- unrelated_edit: the mean of "auc" of this tag over the same edits of unrelated tags.
- ndcg: the change of NDCG@k, less the control's. Null where the user's next item has the tag.
"""


@dataclass(frozen=True)
class Case:
    """A session, and what a policy wrote for it.

    Attributes:
        session_id, user_id: whose it is.
        history: item indexes, which are not ranked.
        target: the user's next item.
        text: the profile.
        other: the profile of another user.
    """

    session_id: int
    user_id: str
    history: NDArray[np.integer]
    target: int
    text: str
    other: str


def measure_edits(
    cases: Sequence[Case],
    catalog: TaggedCatalog,
    tags: Sequence[Tag],
    judge: Similarities,
    *,
    k: int,
    seed: int,
) -> pl.DataFrame:
    """The rows of `COLUMNS` for some sessions. All their profiles are embedded in one batch."""
    edits = [edits_of(case.text, tags, judge, seed, "steerability", case.session_id) for case in cases]
    needed: dict[Any, tuple[int, Profile]] = {}

    def place(profile: Profile) -> int:
        key = profile.text, tuple(profile.requests.items())
        return needed.setdefault(key, (len(needed), profile))[0]

    places = [
        [place(Profile(case.text)), place(Profile(case.other))]
        + [place(profile) for edit in own for profile in (edit.edited, edit.control)]
        for case, own in zip(cases, edits, strict=True)
    ]
    vectors = profile_vectors(catalog.recommender.embedder, [profile for _, profile in needed.values()])
    rows = [
        row
        for case, own, of_case in zip(cases, edits, places, strict=True)
        for row in _Session(case, own, np.array(of_case), vectors, catalog, tags, k, seed).rows()
    ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


class _Session:
    """A session with its edits. Profile 0 is the user's own, profile 1 that of another user, and then come the edited
    profile and the control of each edit in turn."""

    def __init__(
        self,
        case: Case,
        edits: Sequence[TagEdit],
        places: NDArray[np.int64],
        vectors: NDArray[np.float32],
        catalog: TaggedCatalog,
        tags: Sequence[Tag],
        k: int,
        seed: int,
    ):
        self._case, self._edits, self._catalog, self._tags = case, edits, catalog, tags
        self._places, self._vectors = places, vectors
        self._k, self._seed = k, seed
        self._alike: dict[tuple[Any, ...], list[int]] = {}
        for number, edit in enumerate(edits):
            self._alike.setdefault((edit.kind, edit.direction, edit.strength), []).append(number)
        self._has = matrix(tags)
        self._is_unrelated = unrelated(tags)

    def rows(self) -> list[tuple[Any, ...]]:
        whole = self._ranked(self._catalog.recommender.index, np.arange(len(self._places)))
        found = self._of_texts(AS_IS, whole, range(len(self._tags)))
        for tag, index in enumerate(self._catalog.scrubbed):
            own = [number for number, edit in enumerate(self._edits) if edit.tag == tag]
            needed = np.array([0, 1, *(profile for number in own for profile in (2 + 2 * number, 3 + 2 * number))])
            found += self._of_texts(SCRUBBED, self._ranked(index, needed), [tag])
        return found

    def _ranked(self, index: ItemIndex, profiles: NDArray[np.integer]) -> _Ranked:
        """The rankings by some of the profiles. Equal profiles are ranked once."""
        case = self._case
        distinct, back = np.unique(self._places[profiles], return_inverse=True)
        excluded = np.tile(case.history.astype(np.int64), (len(distinct), 1))
        num_ranked = len(index) - len(set(case.history.tolist()))
        scores, items = index.search(self._vectors[distinct], num_ranked, exclude=excluded)
        ranks = mean_ranks(items, scores, len(index))
        places = np.argmax(items == case.target, axis=1) + 1
        rows = np.full(len(self._places), -1)
        rows[profiles] = back
        return _Ranked(
            rows=rows,
            ranks=ranks,
            aucs=tag_aucs(ranks, self._has),
            shares=exposures(items, self._has, self._k),
            ndcg=from_ranks(places, f"ndcg@{self._k}"),
        )

    def _of_texts(self, texts: Texts, ranked: _Ranked, tags: Sequence[int]) -> list[tuple[Any, ...]]:
        """The rows of some tags with one kind of item texts."""
        case = self._case
        found: list[tuple[Any, ...]] = []
        pools = {tag: ranked.pool_aucs(*self._pools[tag]) for tag in tags}
        for number, edit in enumerate(self._edits):
            tag = edit.tag
            if tag not in pools:
                continue
            after, control, sign = 2 + 2 * number, 3 + 2 * number, SIGNS[edit.direction]

            def change(values: NDArray[np.float64], less: int, sign: int = sign, after: int = after) -> float:
                return sign * float(ranked.of(values, after) - ranked.of(values, less))

            auc, share = ranked.aucs[:, tag], ranked.shares[:, tag]
            moves = np.abs(ranked.of(ranked.aucs, after) - ranked.of(ranked.aucs, control))
            others = np.flatnonzero(self._is_unrelated[tag])
            found.append(
                (
                    *(case.session_id, case.user_id, self._tags[tag].name, edit.kind, edit.direction, edit.strength),
                    texts,
                    change(auc, control),
                    change(auc, 0),
                    change(auc, 0) - change(auc, control),
                    change(pools[tag], control),
                    change(pools[tag], 0),
                    change(share, control),
                    change(share, 0),
                    float(moves[tag]),
                    float(np.mean(moves[others])) if len(others) else None,
                    self._unrelated_edit(ranked, edit) if texts == AS_IS else None,
                    None if self._has[tag, case.target] else sign * change(ranked.ndcg, control),
                )
            )
        for tag in tags:
            own, other = (float(ranked.of(ranked.aucs[:, tag], profile)) for profile in (0, 1))
            key = case.session_id, case.user_id, self._tags[tag].name, ANOTHER_USER, "", 0, texts
            found.append((*key, *(None if name != "auc_raw" else other - own for name in _MEASURED)))
        return found

    def _unrelated_edit(self, ranked: _Ranked, edit: TagEdit) -> float | None:
        """The mean effect on a tag of the edits that are the same but for the tag, which is an unrelated one."""
        aucs = ranked.aucs[:, edit.tag]
        effects = [
            SIGNS[edit.direction] * float(ranked.of(aucs, 2 + 2 * number) - ranked.of(aucs, 3 + 2 * number))
            for number in self._alike[edit.kind, edit.direction, edit.strength]
            if self._is_unrelated[edit.tag, self._edits[number].tag]
        ]
        return float(np.mean(effects)) if effects else None

    @cached_property
    def _pools(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """For each tag as many items with it as without, at most `POOL_SIZE`, drawn for the session."""
        kept = np.ones(self._has.shape[1], dtype=bool)
        kept[self._case.history] = False
        pools = []
        for tag, has in zip(self._tags, self._has, strict=True):
            inside, outside = np.flatnonzero(has & kept), np.flatnonzero(~has & kept)
            size = min(POOL_SIZE, len(inside), len(outside))
            random = generator(self._seed, "steerability", self._case.session_id, "pool", tag.name)
            pools.append((random.permutation(inside)[:size], random.permutation(outside)[:size]))
        return pools


_MEASURED = list(COLUMNS)[7:]


@dataclass(frozen=True)
class _Ranked:
    """Rankings by profiles of a session; `rows` says which ranking is that of a profile, -1 for none."""

    rows: NDArray[np.int64]
    ranks: Ranks
    aucs: NDArray[np.float64]
    shares: NDArray[np.float64]
    ndcg: NDArray[np.float64]

    def of(self, values: NDArray[np.float64], profile: int) -> Any:
        """The value that belongs to a profile."""
        return values[self.rows[profile]]

    def pool_aucs(self, tagged: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `evaluation.steerability.pool_aucs`."""
        return pool_aucs(self.ranks, tagged, others)
