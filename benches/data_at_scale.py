"""Time, memory and megabytes a second of `langptune data prepare` at the size of Amazon Reviews 2023.

    python benches/data_at_scale.py --folder DIR [--rows 17300000] [--items 750000] [--gz]

Generates logs in the form of amazon-2023 in DIR (about 600 bytes a review, 1,800 bytes an item) unless they are there,
then prepares them by the command, in its own process, and prints its peak memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

ROWS, ITEMS = 17_300_000, 750_000
"""Reviews and items of Movies_and_TV, the largest category that the paper could have taken."""
USERS_PER_ROW = 6.5 / 17.3
CHUNK = 500_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--items", type=int, help="as many for each review as there are in Movies_and_TV")
    parser.add_argument("--gz", action="store_true", help="compress the logs")
    parser.add_argument("--windows", choices=["last", "all"], default="last")
    parser.add_argument("--count-tokens", action="store_true", help="with the limits of section 4.1, in tokens")
    arguments = parser.parse_args()
    num_items = arguments.items or round(arguments.rows * ITEMS / ROWS)
    reviews, meta = written_logs(arguments.folder, arguments.rows, num_items, arguments.gz)
    print(json.dumps(measured(reviews, meta, arguments.folder / "out", arguments.windows, arguments.count_tokens)))


def measured(reviews: Path, meta: Path, out: Path, windows: str, count_tokens: bool) -> dict[str, float]:
    """Seconds, peak memory (MiB) and raw megabytes a second of one `langptune data prepare`."""
    shutil.rmtree(out, ignore_errors=True)
    limits = [] if count_tokens else ["--max-item-tokens", "0", "--max-history-tokens", "0"]
    command = [
        *(str(Path(sys.executable).with_name("langptune")), "data", "prepare", "amazon-2023", str(out)),
        *("--reviews", str(reviews), "--meta", str(meta), "--windows", windows, *limits),
    ]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(command)} failed")
    megabytes = (reviews.stat().st_size + meta.stat().st_size) / 1e6
    return {
        "megabytes": round(megabytes),
        "seconds": round(seconds, 1),
        "megabytes_per_second": round(megabytes / seconds),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def written_logs(folder: Path, rows: int, num_items: int, compressed: bool) -> tuple[Path, Path]:
    """The files of reviews and of metadata, generated unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".jsonl.gz" if compressed else ".jsonl"
    reviews, meta = folder / f"Movies_and_TV{suffix}", folder / f"meta_Movies_and_TV{suffix}"
    if not (reviews.exists() and meta.exists()):
        rng = np.random.default_rng(0)
        texts = pool_of_texts(rng)
        starts = range(0, num_items, CHUNK)
        write(meta, (item_chunk(rng, texts, start, min(start + CHUNK, num_items)) for start in starts))
        users = rng.permutation(users_of_reviews(rng, rows)).astype(np.uint32)
        write(reviews, (review_chunk(rng, texts, users[i : i + CHUNK], num_items) for i in range(0, rows, CHUNK)))
    return reviews, meta


def write(path: Path, chunks: Iterable[pl.DataFrame]) -> None:
    """Write chunks as JSON lines, gzipped for a path that ends with .gz."""
    part = path.with_name(path.name + ".part")
    with cast(BinaryIO, gzip.open(part, "wb", 1) if path.suffix == ".gz" else part.open("wb")) as file:
        for chunk in chunks:
            chunk.write_ndjson(file)
            print(f"{path.name}: {file.tell() / 1e9:.1f} GB", file=sys.stderr)
    part.rename(path)


def pool_of_texts(rng: np.random.Generator) -> pl.Series:
    """Texts of log-normal length, on average 60 words, with word frequencies like Zipf's."""
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = np.array(["".join(rng.choice(letters, n)) for n in rng.integers(2, 10, 20_000)])
    lengths = np.clip(rng.lognormal(3.6, 1.0, 50_000), 1, 2_000).astype(int)
    drawn = words[(len(words) * rng.random(lengths.sum()) ** 3).astype(int)]
    return pl.Series([" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])])


def users_of_reviews(rng: np.random.Generator, rows: int) -> NDArray[np.int64]:
    """The user of each review, with a heavy tail: most have one or two reviews, some have hundreds."""
    num_users = round(rows * USERS_PER_ROW)
    counts = np.clip(rng.pareto(1.2, num_users) + 1, 1, 2_000)
    counts = np.maximum(1, np.floor(counts * (rows / counts.sum()))).astype(int)
    users = np.repeat(np.arange(num_users), counts)
    return np.concatenate([users, rng.integers(0, num_users, max(0, rows - len(users)))])[:rows]


def review_chunk(rng: np.random.Generator, texts: pl.Series, users: NDArray[np.uint32], num_items: int) -> pl.DataFrame:
    """One review of each of these users."""
    n = len(users)
    items = asins((num_items * rng.random(n) ** 3).astype(np.uint32))
    return pl.DataFrame(
        {
            "rating": rng.integers(1, 6, n).astype(float),
            "title": texts.gather(rng.integers(0, len(texts), n)).str.slice(0, 24),
            "text": texts.gather(rng.integers(0, len(texts), n)),
            "images": pl.Series([[]], dtype=pl.List(pl.String)).new_from_index(0, n),
            "asin": items,
            "parent_asin": items,
            "user_id": "AE" + pl.Series(users).cast(pl.String).str.zfill(26),
            "timestamp": rng.integers(1_000_000_000_000, 1_690_000_000_000, n),
            "helpful_vote": rng.integers(0, 5, n),
            "verified_purchase": rng.random(n) < 0.8,
        }
    )


def item_chunk(rng: np.random.Generator, texts: pl.Series, start: int, stop: int) -> pl.DataFrame:
    """The metadata of the items from `start` to `stop`."""
    n = stop - start
    description, features = (texts.gather(rng.integers(0, len(texts), n)) for _ in range(2))
    return pl.DataFrame(
        {
            "main_category": pl.Series(["Movies & TV"]).new_from_index(0, n),
            "title": texts.gather(rng.integers(0, len(texts), n)).str.slice(0, 60),
            "average_rating": np.round(rng.uniform(1, 5, n), 1),
            "rating_number": rng.integers(1, 10_000, n),
            "features": features.reshape((n, 1)).arr.to_list(),
            "description": description.reshape((n, 1)).arr.to_list(),
            "price": pl.Series(np.round(rng.uniform(1, 60, n), 2)).set(pl.Series(rng.random(n) < 0.4), None),
            "store": texts.gather(rng.integers(0, len(texts), n)).str.slice(0, 20),
            "categories": pl.Series([["Movies & TV", "Genre for Featured Categories", "Drama"]]).new_from_index(0, n),
            "parent_asin": asins(np.arange(start, stop, dtype=np.uint32)),
        }
    )


def asins(items: NDArray[np.uint32]) -> pl.Series:
    """Item ids in the form of Amazon's."""
    return "B" + pl.Series(items).cast(pl.String).str.zfill(9)


if __name__ == "__main__":
    main()
