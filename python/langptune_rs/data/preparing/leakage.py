"""What a model could have seen of the held-out sessions while it trained."""

from __future__ import annotations

import polars as pl

HELD_OUT = ("validation", "test")
COLUMNS = ("user_id", "history", "target", "target_timestamp", "split")
"""The columns of `sessions.parquet` that the report needs."""


def report(sessions: pl.DataFrame, num_items: int) -> dict[str, int]:
    """Counts for `dataset.toml`, with the numbers of sessions and users that they are out of.

    `sessions` has the `COLUMNS` of `sessions.parquet`, and `num_items` is the size of the catalog. Keys that begin with
    `validation_` or `test_` count sessions of that split, and those with `_users` count users. A window is a session's
    history with its target. Two windows of a user overlap where one ends with the two or more items that the other
    begins with. No two windows should.
    """
    coded = _coded(sessions)
    by_split = {split: coded.filter(split=split) for split in ("train", *HELD_OUT)}
    train = by_split["train"]
    histories = train.select("user_id", target="history").explode("target")
    in_histories = histories.select("target").unique()
    in_train = pl.concat([in_histories, train.select("target")]).unique()
    leaks = {f"{split}_sessions": rows.height for split, rows in by_split.items()}
    own = ["user_id", "target"]
    for split in HELD_OUT:
        held_out = by_split[split]
        leaks |= {
            f"{split}_users": held_out["user_id"].n_unique(),
            f"{split}_users_in_train": held_out.join(train, on="user_id", how="semi")["user_id"].n_unique(),
            f"{split}_targets_in_train_histories_of_same_user": _matching(held_out, histories, own),
            f"{split}_targets_as_train_targets_of_same_user": _matching(held_out, train, own),
            f"{split}_targets_in_train_histories_of_any_user": _matching(held_out, in_histories, ["target"]),
            f"{split}_targets_never_in_train": held_out.join(in_train, on="target", how="anti").height,
        }
    leaks["items_never_in_train"] = num_items - in_train.height
    for split, earlier in (("validation", "train"), ("test", "train"), ("test", "validation")):
        sharing = _sharing(by_split[split], by_split[earlier])
        leaks |= {
            f"{split}_sessions_sharing_items_with_{earlier}_of_same_user": sharing.height,
            f"{split}_windows_overlapping_{earlier}": _overlapping(sharing, by_split[earlier]),
        }
    for split in HELD_OUT:
        leaks |= _later(train, by_split[split], split)
    return leaks


def _coded(sessions: pl.DataFrame) -> pl.DataFrame:
    """`sessions` with their windows, and with numbers for the ids of users and items, which are compared faster."""
    window = pl.concat_list("history", "target").cast(pl.List(pl.Categorical)).list.eval(pl.element().to_physical())
    user = pl.col("user_id").cast(pl.Categorical).to_physical()
    coded = sessions.select(user, "target_timestamp", "split", window=window)
    items = pl.col("window").list
    return coded.with_columns(history=items.head(items.len() - 1), target=items.last())


def _matching(held_out: pl.DataFrame, seen: pl.DataFrame, on: list[str]) -> int:
    """The number of held-out sessions that are equal to a row of `seen` in the columns `on`."""
    return held_out.join(seen, on=on, how="semi").height


def _sharing(held_out: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """The held-out sessions with an item that is in a window of `earlier` of the same user."""
    seen = earlier.select("user_id", "window").explode("window")
    rows = held_out.with_row_index("row")
    shared = rows.select("row", "user_id", "window").explode("window").join(seen, on=["user_id", "window"], how="semi")
    return rows.join(shared, on="row", how="semi")


def _overlapping(held_out: pl.DataFrame, earlier: pl.DataFrame) -> int:
    """The number of held-out sessions whose window overlaps one of `earlier` of the same user."""
    earlier = earlier.join(held_out, on="user_id", how="semi")
    overlapping = [
        held_out.select("row", "user_id", shared=_end(ours, n))
        .join(earlier.select("user_id", shared=_end(theirs, n)), on=["user_id", "shared"], how="semi")
        .get_column("row")
        for n in range(2, 1 + (held_out.select(pl.col("window").list.len().max()).item() or 0))
        for ours, theirs in (("first", "last"), ("last", "first"))
    ]
    return pl.concat(overlapping).n_unique() if overlapping else 0


def _end(which: str, n: int) -> pl.Expr:
    """The first or last n items of a window as one text, which can be joined on."""
    window = pl.col("window").cast(pl.List(pl.String)).list
    return (window.head(n) if which == "first" else window.tail(n)).list.join(" ")


def _later(train: pl.DataFrame, held_out: pl.DataFrame, split: str) -> dict[str, int]:
    """Counts of train targets later than the first and the median held-out target. None where times are missing."""
    times = held_out["target_timestamp"]
    if times.null_count() == len(times) or train["target_timestamp"].null_count() == train.height:
        return {}
    return {
        f"train_targets_after_{name}_{split}_target": train.filter(pl.col("target_timestamp") > time).height
        for name, time in (("first", times.min()), ("median", times.median()))
    }
