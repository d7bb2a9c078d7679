"""Train on a log of your own: python examples/train_on_your_log.py FOLDER, which is made.

A log is two files of JSON lines. This one holds readers who stay with one of four kinds of books. The sizes are tiny,
so that nothing much is learned: leave out SMALL for the whole recipe. BOOKS says what the recipe says of films. What
follows FOLDER overrides the recipe, as in policy.model=/models/mine.
"""

import json
import sys
from pathlib import Path

import numpy as np

from langptune_rs.config import load_config
from langptune_rs.experiments.run import run

KINDS = ["About dragons and heroes.", "About slow trains.", "About old kitchens.", "About loud cities."]
BOOKS = (
    "data.template=books",
    "profile.instruction=A user rated these books out of 5, oldest first.",
    "profile.closing=Describe what this user likes, with two of the books, in one short sentence that starts with: The "
    "user likes",
)
SMALL = (
    *("data.windows=all", "data.max_sessions=16", "profile.max_tokens=12"),
    *("contrastive.history_steps=2", "contrastive.steps=2", "contrastive.batch_size=8"),
    *("rlso.steps=2", "rlso.batch_size=4"),
    *("evaluation.max_sessions=8", "evaluation.validation_sessions=2"),
)


def write_log(folder: Path, num_users: int = 80, num_items: int = 40) -> None:
    """items.jsonl and interactions.jsonl; ratings, times and reviews may be missing from yours."""
    generator = np.random.default_rng(0)
    items = [{"item_id": f"b{i}", "title": f"Book {i}", "description": KINDS[i % 4]} for i in range(num_items)]
    interactions = []
    for user in range(num_users):
        for time, item in enumerate(generator.permutation(np.arange(user % 4, num_items, 4))):
            rating = int(generator.integers(3, 6))
            interactions.append({"user_id": f"u{user}", "item_id": f"b{item}", "rating": rating, "timestamp": time})
    folder.mkdir(parents=True)
    for name, rows in (("items", items), ("interactions", interactions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(folder: Path, overrides: list[str]) -> None:
    """Writes the log, trains, evaluates on the test split, prints the table and writes the report."""
    write_log(folder / "log")
    config = load_config("quickstart", [f"data.source={folder / 'log'}", *BOOKS, *SMALL, *overrides])
    run(config, folder / "run")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
