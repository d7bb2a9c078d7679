"""`langptune data inspect`: its numbers are those that a loop over the rows counts."""

import json
import math
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config.data import DataConfig
from langptune_rs.data import inspect_dataset, load, prepare
from langptune_rs.data.inspection.charts import draw
from langptune_rs.data.inspection.inspect import bin_counts, bin_edges, summary
from langptune_rs.data.inspection.tables import LENGTH_LABELS, bar, bin_label
from langptune_rs.data.preparing.leakage import report
from langptune_rs.data.store.folder import ITEMS, SESSIONS, save
from langptune_rs.data.store.sessions import SPLITS

unlimited = partial(DataConfig, max_item_tokens=None, max_history_tokens=None)

ITEM_ROWS = [
    {
        "item_id": f"i{i}",
        "title": None if i == 3 else f"Item {i}",
        "description": "Long. " * i if i % 4 else None,
        "categories": ["a", "b"][: i % 3],
        "price": i if i == 5 else None,
    }
    for i in range(12)
]


@pytest.fixture
def folder(write_logs, interactions, tmp_path):
    """A data set whose ratings and reviews are known in part."""
    for i, row in enumerate(interactions):
        row["rating"] = None if i % 7 == 0 else row["rating"] / 4
        row["review_text"] = None if i % 3 == 0 else row["review_text"]
    out = tmp_path / "data"
    prepare(write_logs(ITEM_ROWS, interactions), out, unlimited(windows="all"))
    count_tokens(out)
    return out


def count_tokens(folder):
    """Token counts that differ everywhere; the first item and the first session are not counted."""
    items, sessions = (pl.read_parquet(folder / name) for name in (ITEMS, SESSIONS))
    items, sessions = (
        table.with_columns(num_tokens=pl.Series([None, *range(10, 9 + len(table))])) for table in (items, sessions)
    )
    info = load(folder).info
    save(folder, items, sessions, {name: value for name, value in info.items() if name not in ("format", "sha256")})


def rows_of(folder):
    return [pl.read_parquet(folder / name).to_dicts() for name in (ITEMS, SESSIONS)]


def test_sessions_users_and_items_are_counted(folder):
    items, sessions = rows_of(folder)
    numbers = inspect_dataset(folder).numbers
    assert numbers["items"] == len(items) == 12
    for split in (*SPLITS, "all"):
        own = [row for row in sessions if split in ("all", row["split"])]
        days = [datetime.fromtimestamp(row["target_timestamp"], UTC).date().isoformat() for row in own]
        assert numbers["sessions"][split] == {
            "sessions": len(own),
            "users": len({row["user_id"] for row in own}),
            "items": len({item for row in own for item in [*row["history"], row["target"]]}),
            "targets": len({row["target"] for row in own}),
            "first_target": min(days),
            "last_target": max(days),
        }


def test_what_is_missing_is_counted(folder):
    items, sessions = rows_of(folder)
    missing = inspect_dataset(folder).numbers["missing"]
    assert missing["items"] == {
        field: pytest.approx(sum(not row[field] for row in items) / len(items))
        for field in ("title", "description", "categories", "price", "average_rating")
    }
    assert missing["items"]["title"] == pytest.approx(1 / 12)
    ratings = [rating for row in sessions for rating in row["ratings"]]
    reviews = [review for row in sessions for review in row["reviews"]]
    assert missing["history"] == {
        "rating": pytest.approx(ratings.count(None) / len(ratings)),
        "review": pytest.approx(sum(not review for review in reviews) / len(reviews)),
    }
    assert 0 < missing["history"]["rating"] < missing["history"]["review"] < 1
    assert missing["targets"] == {"timestamp": 0.0}


def test_lengths_are_measured(folder):
    items, sessions = rows_of(folder)
    texts = {row["item_id"]: row["text"] for row in items}
    windows = [(row["user_id"], item) for row in sessions for item in [*row["history"], row["target"]]]
    expected = {
        "interactions_per_user": Counter(user for user, _ in windows).values(),
        "interactions_per_item": Counter(item for _, item in windows).values(),
        "item_characters": map(len, texts.values()),
        "history_characters": [
            sum(len(texts[item]) for item in row["history"]) + sum(len(review or "") for review in row["reviews"])
            for row in sessions
        ],
        "review_characters": [len(review) for row in sessions for review in row["reviews"] if review],
        "item_tokens": range(10, 9 + len(items)),
        "history_tokens": range(10, 9 + len(sessions)),
        "later_targets": num_later(sessions),
    }
    inspection = inspect_dataset(folder)
    measured = {name: sorted(values.tolist()) for name, values in inspection.lengths.items()}
    assert measured == {name: sorted(values) for name, values in expected.items()}
    assert list(measured) == list(LENGTH_LABELS)
    for name, values in measured.items():
        shown = inspection.numbers["lengths"][name]
        assert (shown["count"], shown["min"], shown["max"]) == (len(values), values[0], values[-1])
        assert shown["mean"] == pytest.approx(math.fsum(values) / len(values))
        assert shown["median"] == np.quantile(values, 0.5)
        assert shown["p95"] == np.quantile(values, 0.95)


def num_later(sessions):
    """Items of later train sessions of the same user that are neither in the window nor held out as its targets."""
    held_out = {(row["user_id"], row["target"]) for row in sessions if row["split"] != "train"}
    train = [row for row in sessions if row["split"] == "train"]
    for i, row in enumerate(train):
        later = {
            (other["user_id"], item)
            for other in train[i + 1 :]
            if other["user_id"] == row["user_id"]
            for item in [*other["history"], other["target"]]
            if item not in [*row["history"], row["target"]]
        }
        yield min(10, len(later - held_out))


def test_ratings_are_counted_by_half_points(folder):
    _, sessions = rows_of(folder)
    ratings = [rating for row in sessions for rating in row["ratings"] if rating is not None]
    counts = Counter(math.floor(2 * rating) / 2 for rating in ratings)
    assert {row["rating"]: row["count"] for row in inspect_dataset(folder).numbers["ratings"]} == counts
    assert set(counts) == {0.0, 0.5, 1.0}


def test_each_filter_tells_what_it_removed(folder):
    data, numbers = load(folder), inspect_dataset(folder).numbers
    source, *steps = numbers["filters"]
    assert "removed_interactions" not in source
    for name in ("users", "items", "interactions"):
        assert source[name] - sum(step[f"removed_{name}"] for step in steps) == steps[-1][name]
    assert steps[-1]["removed_interactions"] > 0
    assert numbers["removed"] == data.info["removed"]
    assert numbers["leakage"] == report(pl.read_parquet(folder / SESSIONS), 12)


def test_prompts_are_what_the_policy_reads(folder):
    data = load(folder)
    validation = data.sessions.select("validation")
    places = {session: i for i, session in enumerate(validation.session_ids.tolist())}
    shown = inspect_dataset(folder, split="validation", num_prompts=4, seed=1).numbers["prompts"]
    assert len({prompt["session_id"] for prompt in shown}) == 4
    for prompt in shown:
        i = places[prompt["session_id"]]
        assert prompt == {
            "session_id": validation.session_ids[i],
            "user_id": validation.user_ids[i],
            "target": data.catalog.item_ids[validation.targets[i]],
            "target_title": data.catalog.titles[validation.targets[i]],
            "history_tokens": prompt["session_id"] + 9 if prompt["session_id"] else None,
            "prompt": data.prompt(validation, i),
        }
    assert inspect_dataset(folder, split="validation", num_prompts=4, seed=1).numbers["prompts"] == shown
    assert inspect_dataset(folder, split="validation", num_prompts=4, seed=2).numbers["prompts"] != shown


def test_without_times_ratings_and_reviews_nothing_is_made_up(write_logs, interactions, tmp_path):
    bare = [
        {"user_id": row["user_id"], "item_id": row["item_id"], "position": row["timestamp"]} for row in interactions
    ]
    prepare(write_logs(ITEM_ROWS, bare), tmp_path / "data", unlimited(windows="all"))
    inspection = inspect_dataset(tmp_path / "data")
    numbers = inspection.numbers
    assert numbers["missing"]["history"] == {"rating": 1.0, "review": 1.0}
    assert numbers["missing"]["targets"] == {"timestamp": 1.0}
    assert (numbers["ratings"], numbers["sessions"]["all"]["first_target"]) == ([], None)
    assert "review_characters" not in numbers["lengths"]
    labels = {axes.get_xlabel() for axes in draw(inspection).axes}
    assert "interactions per item" in labels
    assert not labels & {"rating in a history", "time of the target", "characters of review"}


def test_charts_show_every_value(folder):
    inspection = inspect_dataset(folder)
    axes = {panel.get_xlabel(): panel for panel in draw(inspection).axes}
    assert len(axes) == len(inspection.lengths) + 2
    assert sum(bar.get_height() for bar in axes["policy tokens of history"].patches) == len(load(folder).sessions) - 1
    assert sum(bar.get_height() for bar in axes["interactions per user"].patches) == 30
    lines = {line.get_label(): line.get_data().values.sum() for line in axes["time of the target"].patches}
    assert lines == {split: inspection.numbers["sessions"][split]["sessions"] for split in SPLITS}
    assert all(panel.get_ylabel() for panel in axes.values())


values = st.lists(st.integers(0, 100) | st.integers(0, 10**7), min_size=1, max_size=50).map(np.array)


@given(values, st.integers(1, 40))
def test_bins_hold_every_value_once(values, num_bins):
    edges = bin_edges(values, num_bins)
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= values.min()
    assert edges[-2] <= values.max() < edges[-1]
    assert len(edges) - 1 <= max(num_bins + 1, 25)
    counts = bin_counts(values, edges)
    expected = [sum(start <= value < end for value in values) for start, end in pairwise(edges)]
    assert counts.tolist() == expected


def test_bins_are_round_or_double():
    assert bin_edges(np.array([5, 5, 7])).tolist() == [5, 6, 7, 8]
    assert bin_edges(np.array([130, 480, 520])).tolist() == [100, 150, 200, 250, 300, 350, 400, 450, 500, 550]
    assert bin_edges(np.array([3, 5, 5, 100])).tolist() == [3, 4, 8, 16, 32, 64, 128]
    assert summary(np.array([3, 5, 5, 100]))["histogram"]["counts"] == [1, 2, 0, 0, 0, 1]
    assert (bin_label(4, 5), bin_label(1000, 1500)) == ("4", "1,000–1,499")


@given(st.floats(0, 1), st.integers(1, 60))
def test_a_bar_is_as_long_as_its_share(share, width):
    eighths = sum(" ▏▎▍▌▋▊▉█".index(column) for column in bar(share, width))
    assert abs(eighths - 8 * width * share) <= 1
    assert (eighths > 0) == (share > 0)
    assert len(bar(share, width)) <= width


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["data", "inspect", *map(str, arguments)])


def test_everything_is_shown_within_80_columns(command, folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = command("data", "--split", "test", "--prompts", 2)
    assert result.exit_code == 0
    numbers = inspect_dataset(folder, split="test", num_prompts=2).numbers
    tables, *prompts = result.stdout.split("Prompt ")
    assert max(len(line.rstrip()) for line in tables.splitlines()) <= 80
    assert "\x1b" not in result.stdout
    assert tables.startswith("data\nsource jsonl; ")
    for label in (*(LENGTH_LABELS[name] for name in numbers["lengths"]), "ratings in histories"):
        assert f"\n{label}\n" in tables
    assert f"test {numbers['sessions']['test']['sessions']:>16}" in tables
    assert "repeated interactions kept" in tables
    assert "item shared with train, same user" in tables
    assert len(prompts) == 2
    for shown, prompt in zip(prompts, numbers["prompts"], strict=True):
        tokens = f", history of {prompt['history_tokens']:,} tokens"
        assert f"of 2: session {prompt['session_id']}, user {prompt['user_id']}{tokens}\n" in shown
        assert f"The user chose next: {prompt['target_title']} [{prompt['target']}]\n\n{prompt['prompt']}\n" in shown
    chart = tmp_path / "data-inspect" / "histograms.png"
    assert result.stdout.endswith(f"Histograms written to {chart}\n")
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in chart.parent.iterdir()] == ["histograms.png"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_json_is_all_of_it(command, folder, tmp_path):
    result = command("data", "--json", "--plots", "some/where", "--seed", 5, "--prompts", 1)
    shown = json.loads(result.stdout)
    assert shown.pop("plots") == "some/where/histograms.png"
    assert shown == inspect_dataset(folder, num_prompts=1, seed=5).numbers
    assert (tmp_path / "some" / "where" / "histograms.png").is_file()
    assert not (tmp_path / "data-inspect").exists()


def test_prompts_and_charts_may_be_left_out(command, folder, tmp_path):
    there = set(tmp_path.iterdir())
    shown = json.loads(command("data", "--json", "--no-plots", "--prompts", 0).stdout)
    assert (shown["prompts"], shown["plots"]) == ([], None)
    assert set(tmp_path.iterdir()) == there
    assert "Prompt" not in command("data", "--no-plots", "--prompts", 0).stdout


def test_three_prompts_or_as_many_as_there_are(command, write_logs, items, interactions, tmp_path):
    few = [row for row in interactions if row["user_id"] in ("u00", "u01", "u02", "u03")]
    prepare(write_logs(items, few), tmp_path / "few", unlimited(min_interactions=1))
    assert len(inspect_dataset(tmp_path / "few", split="test").numbers["prompts"]) == 1
    result = command("few", "--split", "test", "--prompts", 2)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "2 prompts were asked for, but the split 'test' of few has 1 sessions" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere holds no prepared data set"),
        (("logs",), "logs holds no prepared data set"),
        (("data", "--prompts", "1000"), "1000 prompts were asked for"),
        (("data", "--plots", "data"), "data is the data set, which holds no other files"),
        (("data", "--plots", "logs/items.jsonl"), "items.jsonl is a file"),
    ],
)
def test_what_cannot_work_is_said_and_writes_nothing(command, folder, tmp_path, arguments, message):
    there = sorted(tmp_path.rglob("*"))
    result = command(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == there


def test_a_file_that_has_changed_is_named(command, folder):
    (folder / SESSIONS).write_bytes((folder / SESSIONS).read_bytes()[:-1] + b"?")
    result = command("data")
    assert result.exit_code == 2
    assert "sessions.parquet has changed since dataset.toml was written" in result.stderr


def test_a_folder_for_charts_and_none_exclude_each_other(command, folder):
    result = command("data", "--plots", "out", "--no-plots")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr
