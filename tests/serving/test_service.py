"""The models of a run at work."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from sentence_transformers import SentenceTransformer
from tests.experiments.tiny import make_run

from langptune_rs.errors import DataError, InputError, RunError
from langptune_rs.experiments.evaluate import evaluate_run
from langptune_rs.serving.service import ProfileService


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("serving"), samples=0)


@pytest.fixture(scope="module")
def service(run):
    return ProfileService.open(run)


def test_a_profile_is_the_one_that_was_evaluated(run, service):
    evaluate_run(run, progress=False)
    written = pl.read_parquet(run / "profiles.parquet").filter(pl.col("policy") == "LangPTune")
    for row in written.head(2).to_dicts():
        assert service.profile(*service.history_of(row["user_id"])) == row["text"]


def test_ratings_and_reviews_reach_the_policy(service):
    plain = service.dataset.history_prompt([1, 2], [float("nan")] * 2, [None, None], service.config.profile)
    told = service.dataset.history_prompt([1, 2], [1.0, 5.0], [None, "so loud"], service.config.profile)
    assert plain != told
    assert "so loud" in told
    assert isinstance(service.profile([1, 2], [1.0, None], [None, "so loud"]), str)


def test_recommendations_are_the_nearest_items(run, service):
    history = [4, 8, 12]
    found = service.recommend("slow trains at night", k=6, exclude=history)
    model = SentenceTransformer(str(run / "embedder"), device="cpu")
    items = model.encode(service.catalog.texts.to_list(), normalize_embeddings=True).astype(np.float64)
    scores = items @ model.encode(["slow trains at night"], normalize_embeddings=True)[0].astype(np.float64)
    scores[history] = -np.inf
    assert [score for *_, score in found] == pytest.approx(np.sort(scores)[::-1][:6].tolist(), abs=1e-5)
    for item_id, title, score in found:
        item = service.catalog.index_of(item_id)
        assert item not in history
        assert service.catalog.titles[item] == title
        assert scores[item] == pytest.approx(score, abs=1e-5)


def test_an_edit_of_the_profile_changes_the_ranking(service):
    before = service.recommend("red dragons, and nothing else", k=10)
    after = service.recommend("kitchens of the last century", k=10)
    assert [item for item, *_ in before] != [item for item, *_ in after]


def test_all_that_is_left_can_be_recommended(service):
    num_items = len(service.catalog)
    everything = service.recommend("cats", k=num_items - 2, exclude=[0, 5, 5])
    assert len({item for item, *_ in everything}) == num_items - 2
    with pytest.raises(InputError, match=f"{num_items - 2} items"):
        service.recommend("cats", k=num_items - 1, exclude=[0, 5, 5])


def test_a_user_has_the_newest_history(service):
    items, ratings, reviews = service.history_of("u3")
    assert len(ratings) == len(reviews) == 4
    lines = (service.run.folder.parent / "source" / "interactions.jsonl").read_text().splitlines()
    chosen = [row["item_id"] for row in map(json.loads, lines) if row["user_id"] == "u3"]
    assert [service.catalog.item_ids[item] for item in items] == chosen[-5:-1]
    with pytest.raises(
        DataError, match=r"no user 'u3x'.* Did you mean 'u3', .*\? Users with fewer than 5 interactions"
    ):
        service.history_of("u3x")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.profile([]), "at least one item"),
        (lambda r: r.profile([1, 2], [4.0]), "1 ratings"),
        (lambda r: r.profile([1, 4000]), "4000"),
        (lambda r: r.recommend("  "), "empty"),
        (lambda r: r.recommend("cats", k=0), "k = 0"),
        (lambda r: r.recommend("cats", exclude=[-1]), "-1"),
    ],
)
def test_bad_input_is_named(service, call, message):
    with pytest.raises(InputError, match=message):
        call(service)


def test_a_run_that_is_not_finished_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        ProfileService.open(tmp_path)
    shutil.copy(run / "config.toml", tmp_path)
    with pytest.raises(RunError, match="--resume"):
        ProfileService.open(tmp_path)
