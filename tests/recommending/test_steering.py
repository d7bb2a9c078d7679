"""Explanations and steerings against brute force in float64, with a real encoder's code and random weights."""

import numpy as np
import pytest
from tests.experiments.tiny import make_models

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import Catalog
from langptune_rs.errors import InputError
from langptune_rs.models.embedder import Embedder
from langptune_rs.recommending.edits import Profile, Remove, Request, Rewrite, Weigh
from langptune_rs.recommending.recommender import Recommender

KINDS = ["red dragons", "slow trains", "old kitchens", "loud cats"]
TITLES = [f"Story {i} of {KINDS[i % 4]}" for i in range(30)]
PROFILE = "Slow trains at night. No loud cats! Old kitchens, and red dragons."
HISTORY = [4, 8, 12, 8]


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    folder = make_models(tmp_path_factory.mktemp("steering"))[1]
    catalog = Catalog([f"i{i}" for i in range(30)], TITLES, [f"Title: {title}" for title in TITLES], TITLES)
    return Recommender.of_catalog(Embedder.load(EmbedderConfig(model=str(folder))), catalog)


def scores(recommender, text: str) -> np.ndarray:
    """Cosine similarities of all items, each text embedded on its own, float64."""
    return recommender.index.item_embeddings.astype(np.float64) @ vector(recommender, text)


def vector(recommender, text: str) -> np.ndarray:
    return recommender.embedder.encode_profiles([text])[0].astype(np.float64)


def order(by_score: np.ndarray, history=()) -> list[int]:
    return [item for item in np.argsort(-by_score, kind="stable").tolist() if item not in history]


def test_each_sentence_is_explained_by_leaving_it_out(recommender):
    found = recommender.explain(PROFILE, 6, HISTORY)
    whole = scores(recommender, PROFILE)
    left = ["No loud cats! Old kitchens, and red dragons.", "Slow trains at night. Old kitchens, and red dragons."]
    left.append("Slow trains at night. No loud cats!")
    assert found.score == pytest.approx(whole[6], abs=1e-6)
    assert found.rank == order(whole, HISTORY).index(6) + 1
    assert found.num_ranked == 27
    assert [part.part.text for part in found.parts] == PROFILE.replace("! ", "!|").replace(". ", ".|").split("|")
    for effect, text in zip(found.parts, left, strict=True):
        without = scores(recommender, text)
        assert effect.effect == pytest.approx(whole[6] - without[6], abs=2e-6)
        assert effect.rank_without == order(without, HISTORY).index(6) + 1
        assert effect.similarity == pytest.approx(scores(recommender, effect.part.text)[6], abs=2e-6)
    items = recommender.index.item_embeddings.astype(np.float64)
    assert [item for item, _ in found.history] == sorted({4, 8, 12}, key=lambda item: -items[item] @ items[6])
    assert [near for _, near in found.history] == pytest.approx(sorted((items[[4, 8, 12]] @ items[6]), reverse=True))


def test_words_are_explained_too(recommender):
    found = recommender.explain("slow red trains", 6, by="word")
    assert [effect.part.text for effect in found.parts] == ["slow", "red", "trains"]
    assert found.parts[1].effect == pytest.approx(
        scores(recommender, "slow red trains")[6] - scores(recommender, "slow trains")[6], abs=2e-6
    )


def test_the_only_sentence_is_explained_by_an_empty_text(recommender):
    (effect,) = recommender.explain("Slow trains.", 6).parts
    assert effect.effect == pytest.approx(scores(recommender, "Slow trains.")[6] - scores(recommender, "")[6], abs=2e-6)


def test_an_item_of_the_history_is_not_explained(recommender):
    with pytest.raises(InputError, match="item 8 is in the history, which is not ranked"):
        recommender.explain(PROFILE, 8, HISTORY)
    with pytest.raises(InputError, match="item holds item 30: the catalog's indexes go from 0 to 29"):
        recommender.explain(PROFILE, 30)


def test_a_rewrite_is_ranked_as_its_text(recommender):
    found = recommender.steer(PROFILE, Rewrite("Loud cats."), exclude=HISTORY)
    assert found.before.items.tolist() == order(scores(recommender, PROFILE), HISTORY)
    assert found.after.items.tolist() == order(scores(recommender, "Loud cats."), HISTORY)
    assert found.profile_after == Profile("Loud cats.")
    places = {item: place for place, item in enumerate(found.before.items.tolist(), start=1)}
    moves = found.moves()
    assert [move.item for move in moves] == found.after.items.tolist()
    assert all(move.rank_before == places[move.item] for move in moves)
    assert [move.rank_after for move in moves] == list(range(1, 28))
    assert sum(move.rise for move in moves) == 0
    assert [move.score_before for move in moves] == pytest.approx(
        scores(recommender, PROFILE)[[move.item for move in moves]], abs=2e-6
    )


def test_moves_show_the_first_items_and_those_that_left(recommender):
    found = recommender.steer(PROFILE, Rewrite("Loud cats."), exclude=HISTORY)
    first, before = found.after.items[:5].tolist(), found.before.items[:5].tolist()
    assert [move.item for move in found.moves(5)] == [*first, *(item for item in before if item not in first)]


def test_weight_zero_is_leaving_out_and_other_weights_scale_it(recommender):
    removed = recommender.steer(PROFILE, Remove(2)).after
    silenced = recommender.steer(PROFILE, Weigh(2, 0)).after
    assert silenced.items.tolist() == removed.items.tolist()
    assert silenced.scores == pytest.approx(removed.scores, abs=1e-6)
    doubled = recommender.steer(PROFILE, Weigh(2, 2), Weigh(3, 0.5)).after
    whole, no_cats, no_kitchens = (
        vector(recommender, text)
        for text in (
            PROFILE,
            "Slow trains at night. Old kitchens, and red dragons.",
            "Slow trains at night. No loud cats!",
        )
    )
    expected = whole + (whole - no_cats) - 0.5 * (whole - no_kitchens)
    by_score = recommender.index.item_embeddings @ (expected / np.linalg.norm(expected))
    assert doubled.scores == pytest.approx(np.sort(by_score)[::-1], abs=1e-6)


def test_a_request_is_added_with_its_weight(recommender):
    after = recommender.steer(PROFILE, Request("dragons", 0.5), Request("cats", -1)).after
    expected = vector(recommender, PROFILE) + 0.5 * vector(recommender, "dragons") - vector(recommender, "cats")
    by_score = recommender.index.item_embeddings @ (expected / np.linalg.norm(expected))
    assert after.scores == pytest.approx(np.sort(by_score)[::-1], abs=1e-6)


def test_steering_back_gives_the_ranking_before(recommender):
    there = recommender.steer(PROFILE, Rewrite("Loud cats and trains."))
    back = recommender.steer(there.profile_after, Rewrite(PROFILE))
    assert back.after.items.tolist() == there.before.items.tolist()


def test_an_edit_that_changes_nothing_is_refused(recommender):
    for edits in ((Rewrite(PROFILE),), (Weigh(1, 1),), (Weigh(1, 2), Weigh(1, 1)), ()):
        with pytest.raises(InputError, match="changes nothing of the profile"):
            recommender.steer(PROFILE, *edits)


def test_weights_that_cancel_the_profile_are_refused(recommender):
    with pytest.raises(InputError, match="cancel the profile"):
        recommender.steer("Slow trains.", Request("Slow trains.", -1))


def test_an_empty_profile_is_refused(recommender):
    for call in (lambda: recommender.explain(" ", 1), lambda: recommender.steer("\n", Rewrite("cats"))):
        with pytest.raises(InputError, match="the profile is empty"):
            call()


def test_what_the_embedder_does_not_read_is_said(recommender):
    words = [f"{KINDS[n % 4]} {n}" for n in range(400)]
    long = " ".join(words)
    unread = recommender.explain(long, 3).unread
    assert unread
    assert long.endswith(unread)
    read = long[: len(long) - len(unread)]
    assert scores(recommender, read) == pytest.approx(scores(recommender, long), abs=0)
    assert scores(recommender, read[:-8]) != pytest.approx(scores(recommender, long), abs=0)
    assert recommender.steer("cats", Rewrite(long)).unread == unread
    assert recommender.explain(PROFILE, 3).unread == ""
