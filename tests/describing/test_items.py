"""Items as what a policy writes about: what it reads, who judges it, and that nothing held out is read."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tests.describing.planted import (
    HISTORY,
    KINDS,
    NUM_ITEMS,
    UNREVIEWED,
    Reader,
    kind_of,
    planted,
    review_of,
    written,
    wrong_kind,
)

from langptune_rs.config import load_config
from langptune_rs.config.profile import ProfileConfig
from langptune_rs.config.reward import parse_reward
from langptune_rs.data.store.columns import TextLists
from langptune_rs.describing.items import INSTRUCTION, descriptions_of_items, item_prompt
from langptune_rs.describing.reviews import train_reviews
from langptune_rs.errors import ConfigError, DataError
from langptune_rs.recommending.described import score_descriptions
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.reward import Outcomes, values_of
from langptune_rs.training.checks import check_sizes

RECIPE = ("data.source=planted", "description.max_reviews=3", "description.max_users=2")


def config_of(*overrides):
    return load_config("describe", [*RECIPE, *overrides])


class Writer:
    """What a writer of profiles is for prompts: their texts."""

    def __init__(self, config):
        self.config = config.profile
        self.policy = SimpleNamespace(encode_prompt=lambda text: text)


class PlantedRanking:
    """The recommender that reads the planted words."""

    def __init__(self, dataset):
        self.recommender = Recommender.of_catalog(Reader(), dataset.catalog)

    def score_descriptions(self, profiles, items, users, *, temperature):
        return score_descriptions(self.recommender, profiles.texts, items, users, temperature=temperature)


def rows_of(subjects):
    return np.arange(len(subjects.ids))


def test_the_prompt_is_the_item_and_what_people_wrote_of_it():
    dataset = planted()
    style = ProfileConfig(closing="Describe it.", history_text="brief")
    assert item_prompt(dataset, 7, ["Good.", "Full of cats."], style) == (
        f"{INSTRUCTION}\n\n- Story 7\n\nReviews:\n- Good.\n- Full of cats.\n\nDescribe it."
    )
    full = item_prompt(dataset, 7, ["Good."], ProfileConfig(instruction="Read this."))
    assert full == f"Read this.\n\n{dataset.catalog.texts[7]}\n\nReviews:\n- Good."


def test_reviews_are_drawn_from_train_sessions_and_cut():
    dataset = planted()
    config = config_of("description.review_words=3").description
    reviews = train_reviews(dataset, config, 0)
    train = dataset.sessions.select("train")
    for item, texts, count in zip(reviews.items.tolist(), reviews.texts, reviews.counts, strict=True):
        users = {train.user_ids[row] for row in np.flatnonzero((train.histories == item).any(axis=1)).tolist()}
        assert set(texts) == {f"Full of {kind_of(item)},…"}  # three words, so that all users wrote the same
        assert (count, len(texts)) == (1, 1)
        assert users
    assert UNREVIEWED not in reviews.items
    whole = train_reviews(dataset, config_of().description, 0)
    for item, texts, count in zip(whole.items.tolist(), whole.texts, whole.counts, strict=True):
        wrote = [user for user, history in zip(train.user_ids, train.histories, strict=True) if item in history]
        assert count == len(wrote)
        assert len(texts) == min(3, count)
        assert set(texts) <= {review_of(item, user) for user in wrote}
    again, other = (train_reviews(dataset, config_of().description, seed) for seed in (0, 1))
    assert again.texts == whole.texts
    assert other.texts != whole.texts


def test_each_item_is_judged_by_those_who_chose_it_in_train():
    dataset = planted()
    assignment = descriptions_of_items(config_of(), dataset)
    train = dataset.sessions.select("train")
    titles = [dataset.history_titles(train, row) for row in range(len(train))]
    for item, users in zip(assignment.train.ids.tolist(), assignment.train.users, strict=True):
        chose = [row for row in range(len(train)) if train.targets[row] == item]
        assert len(users.texts) == min(2, len(chose))
        assert set(users.texts) <= {titles[row] for row in chose}
        assert users.histories.shape == (len(users.texts), HISTORY)
        assert item not in users.histories
    chosen = set(train.targets.tolist())
    assert set(assignment.train.ids.tolist()) == chosen - {UNREVIEWED}
    (everything,) = assignment.others
    assert everything.ids.tolist() == train_reviews(dataset, config_of().description, 0).items.tolist()
    assert assignment.num_available == len(assignment.train.ids)


def test_validation_is_by_the_sessions_of_its_split():
    dataset = planted()
    validation = descriptions_of_items(config_of("evaluation.validation_sessions=9"), dataset).validation
    sessions = dataset.sessions.select("validation").sample(9, 0)
    assert sum(len(users.texts) for users in validation.users) == 9 - (sessions.targets == UNREVIEWED).sum()
    assert set(validation.ids.tolist()) == set(sessions.targets.tolist()) - {UNREVIEWED}


def held_out_replaced(dataset):
    """The same train sessions. Those held out have other histories, and reviews and users that tell on themselves."""
    sessions = dataset.sessions
    held_out = ~sessions.splits.mask("train")
    histories, targets = sessions.histories.copy(), sessions.targets.copy()
    histories[held_out] = np.sort(targets)[: held_out.sum(), None][::-1]  # whatever
    reviews = [
        ["LEAK"] * HISTORY if out else list(own) for out, own in zip(held_out.tolist(), sessions.reviews, strict=True)
    ]
    targets[held_out] = (targets[held_out] + 1) % NUM_ITEMS
    return replace(
        dataset, sessions=replace(sessions, histories=histories, targets=targets, reviews=TextLists(reviews))
    )


def test_nothing_held_out_enters_prompts_or_rewards():
    dataset = planted()
    other = held_out_replaced(dataset)
    config = config_of()
    own, same = (descriptions_of_items(config, of).train for of in (dataset, other))
    assert own.ids.tolist() == same.ids.tolist()
    rows = rows_of(own)
    assert own.prompts(rows, Writer(config)) == same.prompts(rows, Writer(config))
    assert "LEAK" not in "".join(same.prompts(rows, Writer(config)))
    texts = [f"about {KINDS[row % 3]}" for row in rows]
    ranking = PlantedRanking(dataset)
    for first, second in zip(
        own.score(rows, written(texts), ranking, temperature=0.1),
        same.score(rows, written(texts), ranking, temperature=0.1),
        strict=True,
    ):
        assert np.array_equal(first.values, second.values)


def test_what_a_user_wrote_of_a_held_out_target_is_left_out():
    """A user may have met an item before it became the target of a held-out session."""
    dataset = planted()
    sessions = dataset.sessions
    train = sessions.splits.mask("train")
    row = int(np.flatnonzero(train)[0])
    user, item = sessions.user_ids[row], int(sessions.histories[row, 0])
    held_out = next(r for r in np.flatnonzero(~train).tolist() if sessions.user_ids[r] == user)
    targets = sessions.targets.copy()
    targets[held_out] = item
    seen = replace(dataset, sessions=replace(sessions, targets=targets))
    everything = config_of("description.max_reviews=1000").description
    before, after = (train_reviews(of, everything, 0) for of in (dataset, seen))
    own = review_of(item, user)
    (of_item,) = before.of(np.array([item]))
    (left,) = after.of(np.array([item]))
    assert own in of_item
    assert set(left) == set(of_item) - {own}


def test_the_right_description_earns_more_than_the_metadata_and_than_a_wrong_one():
    dataset = planted()
    train = descriptions_of_items(config_of(), dataset).train
    rows, items = rows_of(train), train.ids.tolist()
    texts = [
        text
        for item in items
        for text in (f"Full of {kind_of(item)}.", dataset.catalog.texts[item], f"Full of {wrong_kind(item)}.")
    ]
    ranks, log_probs = train.score(rows, written(texts), PlantedRanking(dataset), temperature=0.1)
    terms = parse_reward("log_softmax + log_rank + ndcg@5 - copied")
    nothing = np.zeros(len(texts))
    values = values_of(terms, Outcomes(ranks, log_probs, nothing, nothing, nothing)).reshape(len(items), 3, -1)
    for term in range(2):
        assert (values[:, 0, term] > values[:, 1, term]).all()
        assert (values[:, 0, term] > values[:, 2, term]).all()
    assert values[:, 0, 2].mean() > 0.3 > 0 == values[:, 1:, 2].max()


def test_what_may_be_copied_are_the_reviews_that_were_read():
    dataset = planted()
    train = descriptions_of_items(config_of(), dataset).train
    rows = rows_of(train)[::3]
    for source, prompt in zip(train.sources(rows), train.prompts(rows, Writer(config_of())), strict=True):
        assert all(f"- {review}" in prompt for review in source.split("\n"))


def test_data_without_reviews_are_refused_with_those_that_have_some():
    dataset = planted()
    bare = replace(
        dataset, sessions=replace(dataset.sessions, reviews=TextLists([[None] * HISTORY] * len(dataset.sessions)))
    )
    with pytest.raises(DataError, match=r"have no reviews.*Amazon.*review_text; MovieLens has none"):
        descriptions_of_items(config_of(), bare)


def test_too_few_items_are_counted_as_what_they_are():
    with pytest.raises(ConfigError, match="only 5 items with a review and a user who chose them"):
        check_sizes(config_of("rlso.batch_size=6"), 5, 5, "items with a review and a user who chose them")
