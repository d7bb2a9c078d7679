"""Metrics against trec_eval, as pytrec_eval calls it, and ranx: every user of random runs."""

import numpy as np
import pytest
import pytrec_eval
import ranx

from langptune_rs import evaluate

NUM_USERS, NUM_ITEMS = 60, 50
CUTS = (1, 3, 20, NUM_ITEMS)
TREC_NAMES = {
    "ndcg": "ndcg_cut",
    "recall": "recall",
    "precision": "P",
    "hit_rate": "success",
    "map": "map_cut",
}


@pytest.fixture(scope="module", params=["one relevant item", "several"])
def problem(request):
    """(ranks, qrels, run): what each library wants of the same whole rankings."""
    rng = np.random.default_rng(0)
    num_relevant = rng.integers(1, 9, NUM_USERS) if request.param == "several" else np.ones(NUM_USERS, dtype=int)
    rankings = rng.permuted(np.tile(np.arange(NUM_ITEMS), (NUM_USERS, 1)), axis=1)
    ranks = [rng.choice(np.arange(1, NUM_ITEMS + 1), size, replace=False) for size in num_relevant]
    qrels = {f"u{user}": {f"i{rankings[user, rank - 1]}": 1 for rank in of_user} for user, of_user in enumerate(ranks)}
    run = {
        f"u{user}": {f"i{item}": float(NUM_ITEMS - place) for place, item in enumerate(ranking)}
        for user, ranking in enumerate(rankings)
    }
    return ranks, qrels, run


def head(run, k):
    return {user: dict(list(items.items())[:k]) for user, items in run.items()}


def trec_eval(qrels, run, measure):
    scores = pytrec_eval.RelevanceEvaluator(qrels, {measure}).evaluate(run)
    return [scores[user][measure.replace(".", "_")] for user in run]


def ranx_scores(qrels, run, metrics):
    relevant = ranx.Qrels(qrels)
    scores = ranx.evaluate(relevant, ranx.Run(run), metrics, return_mean=False)
    order = [list(relevant.keys()).index(user) for user in qrels]
    return {metric: of_users[order] for metric, of_users in scores.items()}


def check(ranks, metric, expected):
    result = evaluate(ranks, [metric])
    np.testing.assert_allclose(result.per_user[metric], expected, rtol=0, atol=1e-12)
    assert result.mean[metric] == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("name", TREC_NAMES)
def test_cut_metrics_are_those_of_trec_eval(problem, name, k):
    ranks, qrels, run = problem
    check(ranks, f"{name}@{k}", trec_eval(qrels, run, f"{TREC_NAMES[name]}.{k}"))


@pytest.mark.parametrize("k", CUTS)
def test_the_cut_reciprocal_rank_is_trec_evals_of_the_first_k_items(problem, k):
    ranks, qrels, run = problem
    check(ranks, f"mrr@{k}", trec_eval(qrels, head(run, k), "recip_rank"))


@pytest.mark.parametrize(("name", "measure"), [("ndcg", "ndcg"), ("mrr", "recip_rank"), ("map", "map")])
def test_uncut_metrics_are_those_of_trec_eval(problem, name, measure):
    ranks, qrels, run = problem
    check(ranks, name, trec_eval(qrels, run, measure))


def test_all_metrics_are_those_of_ranx(problem):
    ranks, qrels, run = problem
    names = ("ndcg", "mrr", "recall", "precision", "hit_rate", "map")
    metrics = [f"{name}@{k}" for name in names for k in CUTS] + [name for name in names if name != "precision"]
    for metric, scores in ranx_scores(qrels, run, metrics).items():
        check(ranks, metric, scores)


def test_precision_of_a_run_of_fewer_items_than_k_is_divided_by_k_by_all_three(problem):
    ranks, qrels, run = problem
    found = [np.where(of_user <= 5, of_user, NUM_ITEMS + 1) for of_user in ranks]
    check(found, "precision@20", trec_eval(qrels, head(run, 5), "P.20"))
    for metric, scores in ranx_scores(qrels, head(run, 5), ["precision@20", "recall@20"]).items():
        check(found, metric, scores)


def test_trec_eval_breaks_ties_by_name_and_rounds_to_float32():
    qrels = {"u": {"a": 1}}
    assert trec_eval(qrels, {"u": {"a": 1.0, "b": 1.0}}, "recip_rank") == [0.5]
    assert trec_eval(qrels, {"u": {"b": 1.0, "a": 1.0 + 1e-9}}, "recip_rank") == [0.5]
