"""What of the held-out sessions a model could have seen while it trained."""

from __future__ import annotations

import polars as pl


def report(sessions: pl.DataFrame, num_items: int) -> dict[str, int]:
    """Counts for `dataset.toml`, beside the number of sessions that they are out of.

    `sessions` has the columns of `sessions.parquet`; `num_items` is the size of the catalog.
    """
    train, test = (sessions.filter(split=split) for split in ("train", "test"))
    train_items = pl.concat([train["history"].explode(), train["target"]]).unique()
    leaks = {
        "train_sessions": train.height,
        "test_sessions": test.height,
        "test_targets_in_train_histories_of_same_user": _repeated(test, train.explode("history"), "history"),
        "test_targets_as_train_targets_of_same_user": _repeated(test, train, "target"),
        "test_targets_never_in_train": test.filter(~pl.col("target").is_in(train_items.implode())).height,
        "items_never_in_train": num_items - len(train_items),
    }
    return leaks | _overlap(train, test)


def _repeated(test: pl.DataFrame, train: pl.DataFrame, column: str) -> int:
    """Test sessions whose target stands in `column` of a train session of the same user."""
    seen = train.select("user_id", target=pl.col(column))
    return test.join(seen, on=["user_id", "target"], how="semi").height


def _overlap(train: pl.DataFrame, test: pl.DataFrame) -> dict[str, int]:
    """Train sessions whose target came after the first test target; nothing where times are missing."""
    first = test["target_timestamp"].min()
    if first is None or train["target_timestamp"].null_count() == train.height:
        return {}
    return {"train_targets_after_first_test_target": train.filter(pl.col("target_timestamp") > first).height}
