"""What happens to rows that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl

from langptune_rs.errors import DataError

OnBadLine = Literal["error", "skip"]

Problems = dict[int, str]
"""Line -> what is wrong there."""

_ADVICE = "Mend the line, or leave such lines out with --on-bad-line skip."


@dataclass
class BadLines:
    """Refuses rows that cannot be used: with an error that names the row, or by counting and listing them."""

    policy: OnBadLine = "error"
    num_rows: int = 0
    """Rows left out."""
    first: list[str] = field(default_factory=list)
    """What was wrong with the first `MAX_LISTED` of them."""

    MAX_LISTED: ClassVar[int] = 20

    def add(self, file: Path, line: int, problem: str, advice: str = _ADVICE) -> None:
        """Count a row. Raises `DataError` with `advice` instead where the policy is `error`."""
        message = f"{file}, line {line}: {problem}"
        if self.policy == "error":
            stop = "" if message.endswith(".") else "."  # behind an excerpt of the line
            raise DataError(f"{message}{stop} {advice}")
        self.num_rows += 1
        if len(self.first) < self.MAX_LISTED:
            self.first.append(message)

    def add_all(self, file: Path, problems: Problems, first_line: int = 0) -> None:
        """`add` each problem in the order of its line. Lines are counted from `first_line`."""
        for line, problem in sorted(problems.items()):
            self.add(file, first_line + line, problem)

    def refuse(
        self,
        rows: pl.DataFrame,
        wrong: pl.Expr,
        place: Callable[[int], tuple[Path, int]],
        problem: str,
        advice: Callable[[dict[str, Any]], str] = lambda row: _ADVICE,
    ) -> pl.DataFrame:
        """Return `rows` without those that are `wrong`, after `add` for each of these.

        `place` says which line of which file a row's `line` is. `problem` is formatted with the columns of the row, and
        `advice` is made of them. Raises `DataError` as `add` does.
        """
        mask = rows.select(wrong.fill_null(False)).to_series()
        if not mask.any():
            return rows
        for row in rows.filter(mask).iter_rows(named=True):
            self.add(*place(row["line"]), problem.format(**row), advice(row))
        return rows.filter(~mask)

    def nothing_left(self, file: Path) -> DataError:
        """Return the error for a file in which no row can be used."""
        here = [message for message in self.first if message.startswith(f"{file}, ")]
        if here:
            return DataError(f"{file} holds no row that can be used. The first: {here[0]}")
        return DataError(f"{file} is empty. It must hold at least one row.")
