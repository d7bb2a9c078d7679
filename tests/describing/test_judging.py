"""Catalogs of texts, judged by the same users on an embedder that reads the planted words."""

import numpy as np
import pytest
from tests.describing.planted import NUM_ITEMS, Reader, kind_of, planted

from langptune_rs.describing.judging import Judge, beside_metadata, catalog_texts
from langptune_rs.evaluation.metrics import from_ranks
from langptune_rs.experiments.kept import Kept


@pytest.fixture
def dataset():
    return planted()


def judge_of(dataset, folder, max_tokens=50):
    sessions = dataset.sessions.select("test")
    users = [dataset.history_titles(sessions, row) for row in range(len(sessions))]
    return Judge(Reader(max_tokens), {"tokens": max_tokens}, sessions, users, Kept(folder), 20)


def test_a_catalog_of_right_descriptions_is_found_and_ranks_are_those_of_a_loop(dataset, tmp_path):
    judge = judge_of(dataset, tmp_path)
    metadata = dataset.catalog.texts.to_list()
    right = [f"About {kind_of(item)}, part {item}." for item in range(NUM_ITEMS)]
    before, after = judge.judge("metadata", metadata), judge.judge("right", right)
    assert after.scores["ndcg@20"].mean() > before.scores["ndcg@20"].mean() + 0.2
    assert (after.scores["log_likelihood"] > before.scores["log_likelihood"]).all()
    sessions, reader = dataset.sessions.select("test"), Reader()
    items = reader.encode_items(right).astype(np.float64)
    for row in range(len(sessions)):
        (user,) = reader.encode_profiles([dataset.history_titles(sessions, row)])
        scores = items @ user
        scores[sessions.histories[row]] = -np.inf
        assert after.ranks[row] == 1 + (scores > scores[sessions.targets[row]]).sum()
        share = np.exp(scores / 0.07)
        expected = np.log(share[sessions.targets[row]] / share.sum())
        assert after.scores["log_likelihood"][row] == pytest.approx(expected, abs=1e-4)
    assert after.scores["ndcg@20"].tolist() == from_ranks(after.ranks, "ndcg@20").tolist()


def test_items_without_a_description_keep_their_metadata():
    assert catalog_texts(["a", "b", "c", "d"], np.array([1, 3]), ["B", "D"]) == ["a", "B", "c", "D"]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("one two", "one two\nthe end"),
        ("one two three four five six", "one two\nthe end"),
        ("one two three", "one two\nthe end"),
        ("", "\nthe end"),
    ],
)
def test_metadata_make_room_for_what_stands_behind_them(dataset, tmp_path, first, expected):
    """Texts of five words may have been cut already, so that four are surely read."""
    assert judge_of(dataset, tmp_path, max_tokens=5).joined(first, "the end") == expected


def test_a_description_that_fills_the_embedder_leaves_no_room(dataset, tmp_path):
    judge = judge_of(dataset, tmp_path, max_tokens=5)
    assert judge.joined("one two", "a b c d") == "a b c d"
    assert judge.joined("one two", "a b c d e f") == "a b c d e f"


def test_what_is_not_read_to_its_end_is_counted(dataset, tmp_path):
    texts = ["one two"] * 36 + ["one two three four five"] * 12
    assert judge_of(dataset, tmp_path, max_tokens=5).judge("some", texts).cut_share == 0.25


def test_embedded_catalogs_are_kept_by_their_texts(dataset, tmp_path, monkeypatch):
    judge = judge_of(dataset, tmp_path)
    texts = dataset.catalog.texts.to_list()
    first = judge.judge("metadata", texts)
    monkeypatch.setattr(Reader, "encode_items", None)
    assert judge.judge("the same under another name", texts).ranks.tolist() == first.ranks.tolist()
    with pytest.raises(TypeError):
        judge.judge("metadata", [*texts[1:], "another"])


def test_catalogs_have_names_of_their_own():
    assert beside_metadata("reviews") == "metadata + reviews"
