"""The recommender against SentenceTransformer and float64."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tests.experiments.tiny import make_models

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import Catalog
from langptune_rs.errors import InputError
from langptune_rs.models.embedder import Embedder
from langptune_rs.recommending.recommender import Recommender

KINDS = ["red dragons", "slow trains", "old kitchens", "loud cats"]
TITLES = [f"Story {i} of {KINDS[i % 4]}" for i in range(30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("recommending"))[1]


@pytest.fixture(scope="module")
def recommender(folder):
    catalog = Catalog([f"i{i}" for i in range(30)], TITLES, [f"Title: {title}" for title in TITLES], TITLES)
    return Recommender.of_catalog(Embedder.load(EmbedderConfig(model=str(folder))), catalog)


def scores(folder, text: str) -> np.ndarray:
    """Cosine similarities of all items, float64."""
    model = SentenceTransformer(str(folder), device="cpu")
    texts = [f"Title: {title}" for title in TITLES]
    items, user = (model.encode(x, normalize_embeddings=True).astype(np.float64) for x in (texts, [text]))
    return items @ user[0]


def test_recommended_are_the_nearest_items_outside_the_history(folder, recommender):
    history = [4, 8, 12]
    items, similarities = recommender.recommend("slow trains at night", k=6, exclude=history)
    expected = scores(folder, "slow trains at night")
    expected[history] = -np.inf
    assert similarities == pytest.approx(np.sort(expected)[::-1][:6], abs=1e-5)
    assert expected[items] == pytest.approx(similarities, abs=1e-5)
    assert not set(items.tolist()) & set(history)


def test_a_catalog_that_is_all_excluded_is_answered_with_what_can_be_done(recommender):
    with pytest.raises(InputError, match="exclude holds all 30 items of the catalog, .* leave some out of it"):
        recommender.recommend("slow trains", k=1, exclude=range(30))


def test_ranks_are_session_major_whatever_the_number_of_texts(folder, recommender):
    texts = ["red dragons", "slow trains", "old kitchens", "loud cats", "dragons and cats", "trains"]
    targets, histories = np.array([3, 17]), np.array([[1, 2], [5, 6]])
    ranks = recommender.ranks(texts, targets, histories)
    assert ranks.shape == (2, 3)
    for i, text in enumerate(texts):
        session = i // 3
        left = scores(folder, text)
        left[histories[session]] = -np.inf
        own = left[targets[session]]
        rank = ranks[session, i % 3]
        assert 1 + (left > own + 1e-5).sum() <= rank <= (left > own - 1e-5).sum()
    assert recommender.ranks([], targets[:0], histories[:0]).size == 0


def test_targets_are_scored_in_one_row_for_each_text(folder, recommender):
    texts = ["red dragons", "slow trains", "loud cats", "red dragons", "red dragons", "trains"]
    histories = np.array([[1, 2], [5, 6]])
    one = recommender.score_targets(texts, np.array([3, 17], dtype=np.int32), histories, temperature=0.1)
    several = recommender.score_targets(texts, [np.array([3]), np.array([0, 17, 9])], histories, temperature=0.1)
    assert [len(row) for row in several[0]] == [1, 1, 1, 3, 3, 3]
    for i, text in enumerate(texts):
        session = i // 3
        left = scores(folder, text)
        left[histories[session]] = -np.inf
        expected = left / 0.1 - np.log(np.exp(left / 0.1).sum())
        targets = [[3], [0, 17, 9]][session]
        np.testing.assert_allclose(several[1][i], expected[targets], atol=1e-4)
        np.testing.assert_allclose(one[1][i], expected[[3, 17][session]], atol=1e-4)
        assert one[0][i][0] == several[0][i][session]
    assert [row.tolist() for row in one[0]] == [
        [rank] for row in recommender.ranks(texts, np.array([3, 17]), histories) for rank in row
    ]
    assert one[1][3] == one[1][4]  # equal texts
    assert len(recommender.score_targets([], np.array([], dtype=int), histories[:0], temperature=0.1)[0]) == 0


@pytest.mark.parametrize(
    ("profile", "k", "exclude", "message"),
    [
        ("  ", 5, [], "the profile is empty"),
        ("cats", 0, [], "k = 0: the catalog has 30 items"),
        ("cats", 29, [0, 5, 5], "28 items to recommend"),
        ("cats", 5, [30], "exclude holds item 30"),
    ],
)
def test_bad_input_is_named(recommender, profile, k, exclude, message):
    with pytest.raises(InputError, match=message):
        recommender.recommend(profile, k, exclude)
