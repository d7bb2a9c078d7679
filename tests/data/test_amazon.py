"""Amazon's raw logs, from the files as they are published to sessions, against a plain account of section 4.1."""

import gzip
import json
import os
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config.data import DataConfig
from langptune_rs.data import load, prepare
from langptune_rs.data.preparing.tokens import TokenCounters
from langptune_rs.data.readers.reader import ITEM_SCHEMA, read_all
from langptune_rs.data.sources.files import Files
from langptune_rs.data.sources.registry import find_source
from langptune_rs.errors import DataError
from langptune_rs.models.tokens import token_counters

NUM_USERS, NUM_ITEMS = 120, 60


TEXTS = ["Good.", "So &quot;so&quot;.<br />Long.", "", "\u2764\ufe0f", "many words " * 30]


class Words:
    """Counts words, so that a test can count them too."""

    name = "words"

    def __call__(self, texts):
        return np.array([len(text.split()) for text in texts], np.uint32)


COUNTERS = TokenCounters(Words(), Words())


@pytest.fixture(scope="module")
def logs():
    """Reviews and metadata of 2023, with what real files have: gaps, markup, repeats, items described nowhere."""
    rng = random.Random(3)
    meta = [
        {
            "main_category": "Movies & TV",
            "title": rng.choice([f"Film {i}", f"Film &amp; {i}", f"<b>Film</b> {i}", "\U0001f3ac"]),
            "average_rating": round(rng.uniform(1, 5), 1),
            "description": [[], [f"About {i}.<br />More."], [f"One {i}", "two"], ["word " * 40]][i % 4],
            "price": [None, 9.0, 17.4, "from 3.99", "—"][i % 5],
            "categories": [[], ["Movies & TV", "Drama"]][i % 2],
            "details": {"Director": "x"},
            "parent_asin": f"B{i:03}",
        }
        for i in range(NUM_ITEMS)
    ]
    meta += [{"parent_asin": "MUTE", "title": None, "description": [], "categories": [], "price": None}, meta[7]]
    reviews = []
    for user in range(NUM_USERS):
        for _ in range(rng.randrange(1, 14)):
            reviews.append(
                {
                    "rating": float(rng.randrange(1, 6)),
                    "title": "Short",
                    "text": rng.choice(
                        ["Good.", "So &quot;so&quot;.<br />Long.", "", "\u2764\ufe0f", "many words " * 30]
                    ),
                    "asin": "VARIANT",
                    "parent_asin": rng.choice([f"B{rng.randrange(NUM_ITEMS):03}"] * 9 + ["GONE", "MUTE"]),
                    "user_id": f"U{user:03}",
                    "timestamp": 1_400_000_000_000 + rng.randrange(10**11),
                    "helpful_vote": 0,
                    "verified_purchase": True,
                }
            )
    reviews += rng.sample(reviews, 20)
    rng.shuffle(reviews)
    return reviews, meta


def write_lines(path, rows, end="\n"):
    text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + end for row in rows)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def files(tmp_path, logs):
    reviews, meta = logs
    return Files(
        interactions=write_lines(tmp_path / "Movies_and_TV.jsonl", reviews),
        items=write_lines(tmp_path / "meta_Movies_and_TV.jsonl", meta),
    )


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["data", "prepare", *map(str, arguments)])


def core_of(log, k=5):
    while True:
        users, items = Counter(row["user_id"] for row in log), Counter(row["parent_asin"] for row in log)
        left = [row for row in log if users[row["user_id"]] >= k and items[row["parent_asin"]] >= k]
        if len(left) == len(log):
            return log
        log = left


def by_user(reviews, meta, max_item_tokens, texts):
    """Each user's interactions in order, filtered by the book."""
    described = {row["parent_asin"] for row in meta} - {"MUTE"}
    seen, log = set(), []
    for row in reviews:
        key = row["user_id"], row["parent_asin"], row["timestamp"]
        if row["parent_asin"] in described and key not in seen:
            log.append(row)
        seen.add(key)
    log = core_of(log)
    log = core_of([row for row in log if len(texts[row["parent_asin"]].split()) <= max_item_tokens])
    users = defaultdict(list)
    for row in sorted(log, key=lambda row: row["timestamp"]):
        users[row["user_id"]].append(row)
    return dict(sorted(users.items()))


def last_distinct(rows, size=5):
    newest = {}
    for row in reversed(rows):
        newest.setdefault(row["parent_asin"], row)
    taken = list(newest.values())[:size]
    return taken[::-1] if len(taken) == size else None


def test_sessions_are_those_of_a_plain_account_of_the_paper(files, logs, tmp_path):
    config = DataConfig(max_item_tokens=30, max_history_tokens=200)
    data = prepare("amazon-2023", tmp_path / "out", config, files=files, counters=COUNTERS)
    every_item = prepare(
        "amazon-2023",
        tmp_path / "all",
        DataConfig(min_interactions=1, max_item_tokens=None, max_history_tokens=None, history_length=1),
        files=files,
    )
    texts = dict(zip(every_item.catalog.item_ids, every_item.catalog.texts, strict=True))
    users = by_user(*logs, 30, texts)
    wanted = {}
    for user, rows in users.items():
        session = last_distinct(rows)
        if session is None:
            continue
        history = "\n\n".join(
            data.template.history_entry(texts[row["parent_asin"]], row["rating"], cleaned(row["text"]) or None)
            for row in session[:-1]
        )
        if len(history.split()) <= 200:
            wanted[user] = [(row["parent_asin"], row["rating"]) for row in session]
    found = {
        user: [
            *zip(data.catalog.item_ids[data.sessions.histories[i]], data.sessions.ratings[i], strict=True),
            data.catalog.item_ids[data.sessions.targets[i]],
        ]
        for i, user in enumerate(data.sessions.user_ids)
    }
    assert list(found) == list(wanted)
    assert 20 < len(found) < NUM_USERS
    for user, session in wanted.items():
        assert found[user] == [*session[:-1], session[-1][0]]
    assert set(data.catalog.item_ids) == {row["parent_asin"] for rows in users.values() for row in rows}
    removed = data.info["removed"]
    assert removed["interactions_with_undescribed_items"] == sum(row["parent_asin"] == "GONE" for row in logs[0])
    assert (removed["items_without_text"], removed["repeated_descriptions"]) == (1, 1)
    assert removed["duplicate_interactions"] > 0
    assert removed["items_too_long"] > 0
    assert removed["sessions_too_long"] > 0


def cleaned(text):
    return text.replace("&quot;", '"').replace("<br />", " ").strip()


def test_fields_are_read_as_the_paper_shows_them(files, tmp_path):
    config = DataConfig(min_interactions=1, max_item_tokens=None, max_history_tokens=None)
    data = prepare("amazon-2023", tmp_path / "out", config, files=files)
    items = {row["item_id"]: row for row in pl.read_parquet(tmp_path / "out/items.parquet").iter_rows(named=True)}
    assert items["B001"]["price"] == "9.0"
    assert items["B002"]["price"] == "17.4"
    assert items["B003"]["price"] == "from 3.99"
    assert items["B004"]["price"] is None
    assert items["B001"]["description"] == "About 1. More."
    assert items["B002"]["description"] == "One 2 two"
    assert items["B001"]["categories"] == ["Movies & TV", "Drama"]
    assert not any("&amp;" in text or "<b" in text or "None" in text for text in data.catalog.texts)
    sessions = pl.read_parquet(tmp_path / "out/sessions.parquet")
    assert sessions["target_timestamp"].is_between(1.4e9, 1.5e9).all()
    assert data.template.name == "movies"


def test_the_paper_s_exact_form_says_none(files, tmp_path):
    config = DataConfig(min_interactions=1, max_item_tokens=None, max_history_tokens=None, template="paper")
    data = prepare("amazon-2023", tmp_path / "out", config, files=files)
    assert data.catalog.texts[data.catalog.index_of("B000")].endswith("Price: None")


def test_reference_takes_the_first_items_and_lets_those_who_came_first_train(files, logs, tmp_path):
    config = DataConfig(max_item_tokens=None, max_history_tokens=None, compat="reference")
    data = prepare("amazon-2023", tmp_path / "out", config, files=files)
    users = by_user(*logs, 10**9, defaultdict(str))
    wanted = {
        user: [row["parent_asin"] for row in rows[:5]]
        for user, rows in users.items()
        if len(rows) >= 5 and rows[4]["parent_asin"] not in {row["parent_asin"] for row in rows[:4]}
    }
    sessions, ids = data.sessions, data.catalog.item_ids
    found = {
        user: [ids[item] for item in (*sessions.histories[i], sessions.targets[i])]
        for i, user in enumerate(sessions.user_ids)
    }
    assert found == wanted
    assert any(len(set(items)) < 5 for items in found.values())
    came = {user: users[user][0]["timestamp"] for user in found}
    in_train = [came[user] for user, split in zip(sessions.user_ids, sessions.splits, strict=True) if split == "train"]
    held_out = [came[user] for user, split in zip(sessions.user_ids, sessions.splits, strict=True) if split != "train"]
    assert max(in_train) <= min(held_out)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_three_years_hold_the_same_once_they_are_read(files, logs, tmp_path, suffix):
    reviews, meta = logs
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    old_reviews = [
        {
            "reviewerID": row["user_id"],
            "asin": row["parent_asin"],
            "overall": row["rating"],
            "unixReviewTime": row["timestamp"] // 1000,
            "reviewText": row["text"],
            "summary": row["title"],
        }
        for row in reviews
    ]
    new = [row | {"timestamp": row["timestamp"] // 1000 * 1000, "average_rating": None} for row in reviews]
    write_lines(files.interactions, new)
    write_lines(files.items, [row | {"average_rating": None} for row in meta])
    data = prepare("amazon-2023", tmp_path / "2023", config, files=files)
    forms = (("2018", "category", json.dumps), ("2014", "categories", repr), ("2014", "categories", json.dumps))
    for number, (year, category, line) in enumerate(forms):
        old_meta = [
            {
                "asin": row["parent_asin"],
                "title": row["title"],
                "description": row["description"] if year == "2018" else " ".join(row["description"]),
                category: row["categories"] if year == "2018" else [row["categories"]],
                "price": row["price"],
            }
            for row in meta
        ]
        folder = tmp_path / f"raw-{number}"
        folder.mkdir()
        write_lines(folder / f"{'reviews_' * (year == '2014')}Movies_and_TV.json{suffix}", old_reviews)
        write_lines(folder / f"meta_Movies_and_TV.json{suffix}", [line(row) for row in old_meta])
        old = prepare(folder, tmp_path / f"{number}", config)
        assert old.info["source"]["name"] == f"amazon-{year}"
        for name in ("items.parquet", "sessions.parquet"):
            assert pl.read_parquet(tmp_path / f"{number}" / name).equals(pl.read_parquet(tmp_path / "2023" / name))
        assert old.info["leakage"] == data.info["leakage"]


def test_the_same_is_made_twice_byte_for_byte(files, tmp_path):
    config = DataConfig(max_item_tokens=30, max_history_tokens=200)
    for name in ("one", "two"):
        prepare("amazon-2023", tmp_path / name, config, files=files, counters=COUNTERS)
    for name in ("items.parquet", "sessions.parquet", "dataset.toml"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_command_counts_tokens_by_the_embedded_models(command, files, tmp_path):
    result = command("amazon-2023", "out", "--reviews", files.interactions, "--meta", files.items)
    assert result.exit_code == 0, result.output
    counters = token_counters("all-minilm-l6-v2", "smollm2-135m-instruct")
    data = load(tmp_path / "out")
    items = pl.read_parquet(tmp_path / "out/items.parquet")
    assert items["num_tokens"].to_list() == counters.items(data.catalog.texts.to_list()).tolist()
    sessions = pl.read_parquet(tmp_path / "out/sessions.parquet")
    histories = [data.session_text(data.sessions, i) for i in range(len(data.sessions))]
    assert sessions["num_tokens"].to_list() == counters.histories(histories).tolist()
    assert data.info["tokenizers"] == {"items": counters.items.name, "histories": counters.histories.name}
    again = command("amazon-2023", "out", "--reviews", files.interactions, "--meta", files.items)
    assert again.exit_code == 0
    shorter = command("amazon-2023", "out", "--path", tmp_path, "--max-item-tokens", 20)
    assert (shorter.exit_code, "max_item_tokens = 512 there, 20 here" in shorter.stderr) == (2, True)


# What real files hold that nobody wants


def broken(rows, line, at=1):
    return [*rows[:at], line, *rows[at:]]


REVIEW = {"user_id": "U000", "parent_asin": "B000", "rating": 4.0, "timestamp": 1_400_000_000_000, "text": "x"}


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("interactions", '{"user_id": "U1", ', r"Movies_and_TV.jsonl, line 2: broken JSON, .*: {\"user_id\": \"U1\","),
        ("interactions", json.dumps(REVIEW | {"rating": 6}), "line 2: the rating 6 is not from 0 to 5."),
        ("interactions", json.dumps(REVIEW | {"rating": "good"}), 'line 2: rating = "good" is no number'),
        ("interactions", json.dumps(REVIEW | {"user_id": None}), "line 2: user_id = null identifies nothing"),
        ("interactions", json.dumps(REVIEW | {"text": 3}), None),
        ("items", '{"parent_asin": "B9"', "meta_Movies_and_TV.jsonl, line 2: broken JSON"),
        ("items", json.dumps({"parent_asin": "B9", "title": ["list"]}), 'line 2: title = ["list"] is no text'),
    ],
)
def test_a_bad_line_is_named_or_counted(command, files, logs, tmp_path, file, line, message):
    path = getattr(files, file)
    write_lines(path, broken(logs[0] if file == "interactions" else logs[1], line))
    arguments = ("amazon-2023", "out", "--path", tmp_path)
    stopped = command(*arguments)
    if message is None:  # the text of an interaction that is in no session is never looked at
        assert stopped.exit_code == 0
        return
    assert stopped.exit_code == 2
    assert message.replace(r"\"", '"').split(".*")[0] in stopped.stderr
    assert "--on-bad-line skip" in stopped.stderr
    assert not (tmp_path / "out").exists()
    skipped = command(*arguments, "--on-bad-line", "skip")
    assert skipped.exit_code == 0, skipped.stderr
    assert "removed 1 lines that cannot be used" in skipped.stdout
    assert "line 2" in load(tmp_path / "out").info["bad_lines"][0]["line"]


def test_a_field_that_only_the_second_pass_needs_is_bad_in_the_first(files, logs, tmp_path):
    write_lines(files.items, [row | {"average_rating": "high"} if i == 3 else row for i, row in enumerate(logs[1])])
    config = DataConfig(max_item_tokens=None, max_history_tokens=None, on_bad_line="skip")
    data = prepare("amazon-2023", tmp_path / "out", config, files=files)
    assert "B003" not in data.catalog.item_ids
    assert data.info["removed"]["bad_lines"] == 1
    assert data.info["removed"]["interactions_with_undescribed_items"] > 0


def test_a_review_that_is_no_text_is_left_out_and_its_interaction_stays(files, logs, tmp_path):
    config = DataConfig(max_item_tokens=None, max_history_tokens=None, on_bad_line="skip")
    whole = prepare("amazon-2023", tmp_path / "whole", config, files=files)
    write_lines(files.interactions, [row | {"text": 5} for row in logs[0]])
    data = prepare("amazon-2023", tmp_path / "out", config, files=files)
    assert data.sessions.histories.tolist() == whole.sessions.histories.tolist()
    assert not data.sessions.reviews.has_any
    assert data.info["removed"]["reviews_that_cannot_be_used"] > 0
    assert data.info["removed"]["bad_lines"] == 0


def test_rubbish_of_2018_is_no_title_and_no_price(tmp_path):
    rubbish = {"title": "var aPageStart = (new Date()).getTime();", "price": ".a-box-inner{color:#fff}"}
    meta = [{"asin": f"B{i}", "title": f"Toy {i}", "price": "$3.50", "category": ["Toys"]} for i in range(6)]
    meta[2] |= rubbish
    reviews = [{"asin": f"B{i}", "reviewerID": f"U{u}", "overall": 5} for u in range(12) for i in range(6)]
    files = Files(
        items=write_lines(tmp_path / "meta_Toys.json", meta), interactions=write_lines(tmp_path / "Toys.json", reviews)
    )
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    data = prepare("amazon-2018", tmp_path / "out", config, files=files)
    assert data.catalog.texts[1] == "Title: Toy 1\nCategory: Toys\nPrice: $3.50"
    assert data.catalog.texts[2] == "Category: Toys"


def test_files_of_one_name_are_told_apart(logs, tmp_path):
    reviews, meta = logs
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    for name, rows in (("a", meta), ("b", reviews)):
        (tmp_path / name).mkdir()
        write_lines(tmp_path / name / "log.jsonl", rows)
    files = Files(items=tmp_path / "a/log.jsonl", interactions=tmp_path / "b/log.jsonl")
    prepare("amazon-2023", tmp_path / "out", config, files=files)
    write_lines(tmp_path / "a/log.jsonl", [row | {"title": "Other"} for row in meta])
    with pytest.raises(DataError, match="other source files"):
        prepare("amazon-2023", tmp_path / "out", config, files=files)


def test_an_overwrite_that_fails_leaves_what_was_there(files, tmp_path, monkeypatch):
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    before = prepare("amazon-2023", tmp_path / "out", config, files=files)
    was = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}

    def fill(*_, **__):
        raise OSError(28, "full")

    other = DataConfig(max_item_tokens=None, max_history_tokens=None, seed=5)
    with monkeypatch.context() as patch:
        patch.setattr("langptune_rs.data.store.folder.write_tables", fill)
        with pytest.raises(DataError, match=r"cannot be written to .*full"):
            prepare("amazon-2023", tmp_path / "out", other, files=files, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == was
    assert load(tmp_path / "out").info == before.info


def test_a_line_in_another_encoding_is_named_or_counted(command, files, logs, tmp_path):
    text = files.interactions.read_bytes()
    files.interactions.write_bytes(
        json.dumps(REVIEW | {"text": "caf\xe9"}, ensure_ascii=False).encode("latin-1") + b"\n" + text
    )
    arguments = ("amazon-2023", "out", "--path", tmp_path)
    assert "line 1: not UTF-8 at byte" in command(*arguments).stderr
    skipped = command(*arguments, "--on-bad-line", "skip")
    assert "removed 1 lines" in skipped.stdout


def test_times_may_be_in_seconds_or_missing(files, logs, tmp_path):
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    whole_seconds = [row | {"timestamp": row["timestamp"] // 1000 * 1000} for row in logs[0]]
    write_lines(files.interactions, whole_seconds)
    milliseconds = prepare("amazon-2023", tmp_path / "ms", config, files=files)
    write_lines(files.interactions, [row | {"timestamp": row["timestamp"] // 1000} for row in logs[0]])
    seconds = prepare("amazon-2023", tmp_path / "s", config, files=files)
    assert (tmp_path / "ms/sessions.parquet").read_bytes() == (tmp_path / "s/sessions.parquet").read_bytes()
    assert seconds.info["leakage"] == milliseconds.info["leakage"]
    write_lines(files.interactions, [{k: v for k, v in row.items() if k != "timestamp"} for row in logs[0]])
    timeless = prepare("amazon-2023", tmp_path / "none", config, files=files)
    assert len(timeless.sessions) > 20
    with pytest.raises(DataError, match=r'"temporal" needs the time of every target'):
        prepare("amazon-2023", tmp_path / "no", config.model_copy(update={"split": "temporal"}), files=files)


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(files, logs, tmp_path):
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    prepare("amazon-2023", tmp_path / "lf", config, files=files)
    for path, rows in zip((files.interactions, files.items), logs, strict=True):
        write_lines(path, rows, end="\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    prepare("amazon-2023", tmp_path / "crlf", config, files=files)
    for name in ("items.parquet", "sessions.parquet"):
        assert (tmp_path / "lf" / name).read_bytes() == (tmp_path / "crlf" / name).read_bytes()


def test_a_megabyte_in_one_field_is_read(files, logs, tmp_path):
    write_lines(
        files.interactions, [row | {"text": "word " * 200_000} if i == 3 else row for i, row in enumerate(logs[0])]
    )
    config = DataConfig(max_item_tokens=None, max_history_tokens=None)
    assert len(prepare("amazon-2023", tmp_path / "out", config, files=files).sessions) > 20


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: gzip.compress(data)[:-300], "is not a complete gzip file: reading stopped after line"),
    ],
)
def test_a_file_that_holds_nothing_or_was_cut_is_refused(command, files, tmp_path, spoil, message):
    data = files.interactions.read_bytes()
    files.interactions.unlink()
    spoiled = spoil(data)
    path = tmp_path / ("Movies_and_TV.jsonl" + ".gz" * bool(spoiled))
    path.write_bytes(spoiled)
    result = command("amazon-2023", "out", "--path", tmp_path)
    assert (result.exit_code, message in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_metadata_without_any_review_leaves_nothing(command, files, logs, tmp_path):
    write_lines(files.interactions, [row | {"parent_asin": "GONE"} for row in logs[0]])
    result = command("amazon-2023", "out", "--path", tmp_path)
    assert 'Nothing is left after the step "described items"' in result.stderr


def test_a_core_that_removes_everything_says_so(command, files, tmp_path):
    result = command("amazon-2023", "out", "--path", tmp_path, "--min-interactions", 500)
    assert 'Nothing is left after the step "500-core"' in result.stderr


@pytest.mark.skipif(
    "LANGPTUNE_AMAZON_DIR" not in os.environ, reason="LANGPTUNE_AMAZON_DIR does not say where the raw files are"
)
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_paper_s_counts_come_out(tmp_path):
    """Section 4.1: 17,482 sessions of 10,533 items, 14,698 to train and 1,392 each to validate and test."""
    folder = Path(os.environ["LANGPTUNE_AMAZON_DIR"])
    policy = os.environ.get("LANGPTUNE_AMAZON_POLICY", "meta-llama/Meta-Llama-3-8B-Instruct")
    counters = token_counters("mixedbread-ai/mxbai-embed-large-v1", policy)
    config = DataConfig(template="paper", held_out=1_392)
    data = prepare("amazon-2023", tmp_path / "out", config, files=Files(folder), counters=counters)
    assert data.info["sessions"] == {"train": 14_698, "validation": 1_392, "test": 1_392}
    assert len(data.catalog) == 10_533


def test_missing_files_are_asked_for_by_the_options_of_the_help(command, files):
    assert "give the file with --meta, or" in command("amazon-2023", "out").stderr
    assert "give the file with --reviews, or" in command("amazon-2023", "out", "--meta", files.items).stderr
    unknown = command("amazon-2023", "out", "--reviews", files.interactions, "--meta", files.items, "--embedder", "x")
    assert "Set embedder.model (--embedder of `langptune data prepare`) to" in unknown.stderr


@pytest.mark.parametrize(
    ("line", "title", "price"),
    [
        (r"""{'asin': 'a', 'title': "It's \\ caf\xe9", 'price': 3.5}""", "It's \\ caf\xe9", "3.5"),
        (r"""{'asin': 'a', 'title': 'x', 'price': None}""", "x", None),
        (r"""{'asin': 'a', 'title': 'x \ud83d\ude00', 'price': nan}""", "x \U0001f600", None),
        (r"""{'asin': 'a', 'title': 'a\/b \d', 'price': null, 'used': true}""", "a/b \\d", None),
        (r"""{"asin": "a", "title": "a\/b \ud83d\ude00", "price": null}""", "a/b \U0001f600", None),
        (r""" { "asin": "a", "title": "x", "price": NaN, "used": false}""", "x", None),
        (r"""{"asin": "a", "title": "x", "price": 3.50, "salesRank": {"Toys": 1}}""", "x", "3.5"),
        (r"""{"asin": "a", "title": "It's \'x\' caf\xe9", "price": None, "used": True}""", "It's 'x' caf\xe9", None),
        (r"""{"asin": 'a', "title": 'x', "price": 3.5, "related": {(1, 2): {3}}}""", "x", "3.5"),
    ],
)
def test_metadata_of_2014_is_python_or_json(tmp_path, line, title, price):
    write_lines(tmp_path / "meta_Toys.json", [line])
    write_lines(tmp_path / "reviews_Toys.json", [{"reviewerID": "u", "asin": "a"}])
    items = read_all(find_source("amazon-2014", Files(tmp_path)).logs.items, ITEM_SCHEMA)
    assert items.select("title", "price").rows() == [(title, price)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{'asin': 'a', 'title': open('x')}", "broken line, neither JSON nor a Python literal"),
        ("{'asin': 'a', 'title': name}", "broken line, neither JSON nor a Python literal"),
        ("{'asin': 'a', 'title': ", "broken line, .*never closed"),
        ('{"asin": "a", "title": ', "broken line, "),
        ("{'asin': " + "[" * 100_000, "broken line, "),
        ('{"asin": "a", "title": None, ', "broken line, Expecting value at character 24"),
        ("{'asin': 'a', 'title': {[]: 1}}", "broken line, no value of Python, unhashable type: 'list'"),
        ("{[]: 1}", "broken line, no value of Python"),
        ("{{}}", "broken line, no value of Python"),
        ("{'asin': 'a', 'price': " + "9" * 400 + "}", "price = 9+… is no number"),
        ("{'asin': 'a', 'title': {(1, 2): 3}}", r"title = {\(1, 2\): 3} is no text"),
        ("['asin']", "no JSON object but"),
        ("[{(1, 2): 3}]", "no JSON object but"),
    ],
)
def test_what_is_neither_is_named(tmp_path, line, problem):
    write_lines(tmp_path / "meta_Toys.json", [line])
    write_lines(tmp_path / "reviews_Toys.json", [{"reviewerID": "u", "asin": "a"}])
    with pytest.raises(DataError, match=rf"meta_Toys\.json, line 1: {problem}") as caught:
        read_all(find_source("amazon-2014", Files(tmp_path)).logs.items, ITEM_SCHEMA)
    assert " object at 0x" not in str(caught.value)
