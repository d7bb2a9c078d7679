"""The comparison at the end of a run, on models with random weights."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from sentence_transformers import SentenceTransformer
from tests.experiments.tiny import NUM_ITEMS, make_run

from langptune_rs.config import load_config, to_toml
from langptune_rs.data import open_source
from langptune_rs.errors import DataError, RunError
from langptune_rs.evaluation.significance import bootstrap_interval, holm, paired_permutation_test
from langptune_rs.evaluation.summary import compare_sessions, score_sessions, summarize
from langptune_rs.experiments.evaluate import evaluate_run
from langptune_rs.models.tokens import token_counters
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.results import per_user_path, profiles_path, read_results, results_path

METRICS = ["ndcg@20", "mrr@20", "recall@20", "precision@20", "ndcg", "log_likelihood", "log_rank"]
TABLES = ("methods", "sampled", "parts", "sampled_parts")
POLICY_0, EMBEDDER_0 = "trained embedder, initial policy", "initial embedder, trained policy"


@pytest.fixture(scope="module")
def results(evaluated_run):
    return read_results(evaluated_run)


@pytest.fixture(scope="module")
def per_user(evaluated_run):
    return pl.read_parquet(evaluated_run / "per_user.parquet")


@pytest.fixture(scope="module")
def profiles(evaluated_run):
    return pl.read_parquet(evaluated_run / "profiles.parquet")


@pytest.fixture(scope="module")
def held_out(evaluated_run):
    config = read_config(evaluated_run)
    dataset = open_source(
        config.data, evaluated_run / "data", token_counters(config.embedder.model, config.policy.model)
    )
    return dataset, dataset.sessions.select("test")


@pytest.fixture(scope="module")
def users(per_user):
    greedy = per_user.filter((pl.col("table") == "methods") & (pl.col("method") == "MP")).sort("session_id")
    assert greedy["user_id"].n_unique() < len(greedy), "no user has two sessions"
    return greedy["user_id"].to_list()


def scores_of(per_user, table, method, metric):
    rows = per_user.filter((pl.col("table") == table) & (pl.col("method") == method)).sort("session_id")
    return rows[metric].to_numpy()


def test_results_hold_every_method_and_number(results, held_out):
    assert results["split"] == "test"
    assert results["num_sessions"] == len(held_out[1])
    assert results["num_items"] == NUM_ITEMS
    assert list(results["methods"]) == ["Random", "MP", "EMB-0", "LangPTune-0", "LangPTune"]
    assert list(results["sampled"]) == ["LangPTune-0", "LangPTune"]
    assert list(results["parts"]) == list(results["sampled_parts"]) == ["contrastive", "rlso"]
    limits = dict.fromkeys(METRICS, (0, 1)) | {"log_likelihood": (-np.inf, 0), "log_rank": (0, np.log(NUM_ITEMS))}
    for table in TABLES:
        for method, scores in results[table].items():
            assert list(scores) == METRICS
            for metric, score in scores.items():
                assert (score is None) == (metric == "log_likelihood" and method in {"Random", "MP"})
                if score is not None:
                    low, high = limits[metric]
                    assert low <= score["low"] <= score["mean"] + 1e-12 <= score["high"] + 2e-12 <= high + 3e-12
                    assert (score["p_value"] is None) == (method == "LangPTune-0")
    for statistics in [*results["profiles"].values(), *results["sampled_profiles"].values()]:
        assert 1 <= statistics["tokens"] <= 12
        assert 0 <= statistics["overlong_rate"] <= 1
        assert 0 <= statistics["copied_share"] <= 1
    assert results["config"]["seed"] == 0
    assert results["versions"]["torch"]


def test_means_are_those_of_the_saved_scores(results, per_user):
    for table in TABLES:
        for method, scores in results[table].items():
            for metric in METRICS:
                saved = scores_of(per_user, table, method, metric)
                if scores[metric] is None:
                    assert np.isnan(saved.astype(float)).all()
                else:
                    assert scores[metric]["mean"] == pytest.approx(saved.mean())


def test_p_values_are_paired_with_the_untrained_models(results, per_user, users):
    for table in TABLES:
        baseline = "sampled" if table.startswith("sampled") else "methods"
        rivals = [method for method in results[table] if method != "LangPTune-0"]
        before = scores_of(per_user, baseline, "LangPTune-0", "ndcg@20")
        p_values = [
            paired_permutation_test(scores_of(per_user, table, m, "ndcg@20"), before, clusters=users) for m in rivals
        ]
        assert [results[table][m]["ndcg@20"]["p_value"] for m in rivals] == p_values
        assert [results[table][m]["ndcg@20"]["p_holm"] for m in rivals] == holm(p_values)


def test_the_comparisons_are_those_of_the_saved_scores(results, per_user, users):
    """Each pair once in each decoding: the gain of either model, and every trained method against the untrained."""
    places = {
        ("LangPTune", "greedy"): ("methods", "LangPTune"),
        ("LangPTune", "sampled"): ("sampled", "LangPTune"),
        (POLICY_0, "greedy"): ("parts", "contrastive"),
        (POLICY_0, "sampled"): ("sampled_parts", "contrastive"),
        (EMBEDDER_0, "greedy"): ("parts", "rlso"),
        (EMBEDDER_0, "sampled"): ("sampled_parts", "rlso"),
        ("LangPTune-0", "greedy"): ("methods", "LangPTune-0"),
        ("LangPTune-0", "sampled"): ("sampled", "LangPTune-0"),
        **{(name, decoding): ("methods", name) for name in ("EMB-0", "MP") for decoding in ("greedy", "sampled")},
    }
    gains = [("LangPTune", POLICY_0), ("LangPTune", EMBEDDER_0)]
    trained = ("LangPTune", POLICY_0, EMBEDDER_0)
    pairs = [*gains, *((method, other) for method in trained for other in ("LangPTune-0", "EMB-0", "MP"))]
    expected = [
        (*pair, decoding, metric)
        for decoding in ("greedy", "sampled")
        for pair in pairs
        for metric in METRICS
        if not (metric == "log_likelihood" and pair[1] == "MP")
    ]
    keys = ("method", "other", "decoding", "metric")
    assert [tuple(row[key] for key in keys) for row in results["comparisons"]] == expected
    for row in results["comparisons"]:
        assert list(row) == [*keys, "difference", "interval", "p"]
        a, b = (
            scores_of(per_user, *places[row[name], row["decoding"]], row["metric"]).astype(float)
            for name in ("method", "other")
        )
        assert row["difference"] == pytest.approx((a - b).mean(), abs=1e-12)
        assert row["interval"] == pytest.approx(bootstrap_interval(a - b, clusters=users), abs=1e-12)
        assert row["p"] == paired_permutation_test(a, b, clusters=users)


def test_a_pair_that_is_also_in_a_table_has_one_p(results):
    rows = [r for r in results["comparisons"] if (r["method"], r["other"]) == ("LangPTune", "LangPTune-0")]
    assert len(rows) == 2 * len(METRICS)
    for row in rows:
        table = results["methods" if row["decoding"] == "greedy" else "sampled"]
        assert row["p"] == table["LangPTune"][row["metric"]]["p_value"]


def test_every_session_counts_once_in_every_method(per_user, held_out):
    expected = sorted(held_out[1].session_ids.tolist())
    for (table, _), rows in per_user.group_by("table", "method"):
        assert sorted(rows["session_id"].to_list()) == expected
        assert set(rows["ranks"].list.len()) == {2 if table.startswith("sampled") else 1}
        assert rows["ranks"].list.min().min() >= 1
        assert rows["ranks"].list.max().max() <= NUM_ITEMS - 4


@pytest.mark.parametrize(
    ("table", "method", "policy", "embedder"),
    [
        ("methods", "LangPTune-0", "LangPTune-0", "initial"),
        ("methods", "LangPTune", "LangPTune", "trained"),
        ("parts", "contrastive", "LangPTune-0", "trained"),
        ("parts", "rlso", "LangPTune", "initial"),
        ("sampled", "LangPTune-0", "LangPTune-0", "initial"),
        ("sampled", "LangPTune", "LangPTune", "trained"),
        ("sampled_parts", "contrastive", "LangPTune-0", "trained"),
        ("sampled_parts", "rlso", "LangPTune", "initial"),
    ],
)
def test_ranks_are_those_of_the_right_profiles_and_embedder(
    evaluated_run, per_user, profiles, held_out, table, method, policy, embedder
):
    """All again, in float64, from the profiles on disk and the embedder as SentenceTransformer loads it."""
    dataset, sessions = held_out
    folder = evaluated_run / "embedder" if embedder == "trained" else read_config(evaluated_run).embedder.model
    model = SentenceTransformer(str(folder), device="cpu")
    items = model.encode(dataset.catalog.texts.to_list(), normalize_embeddings=True).astype(np.float64)
    rows = per_user.filter((pl.col("table") == table) & (pl.col("method") == method))
    ranks = dict(zip(rows["session_id"], rows["ranks"], strict=True))
    decoding = "sampled" if table.startswith("sampled") else "greedy"
    written = profiles.filter((pl.col("policy") == policy) & (pl.col("decoding") == decoding))
    assert len(written) == sum(len(r) for r in ranks.values())
    log_likelihoods = {session: [] for session in ranks}
    for row in written.to_dicts():
        i = sessions.session_ids.tolist().index(row["session_id"])
        scores = items @ model.encode([row["text"]], normalize_embeddings=True)[0].astype(np.float64)
        scores[sessions.histories[i]] = -np.inf
        target, rank = scores[sessions.targets[i]], ranks[row["session_id"]][row["sample"]]
        assert 1 + (scores > target + 1e-5).sum() <= rank <= (scores > target - 1e-5).sum()
        log_likelihoods[row["session_id"]].append(target / 0.07 - np.log(np.exp(scores / 0.07).sum()))
    for session, saved, log_rank in rows.select("session_id", "log_likelihood", "log_rank").iter_rows():
        assert saved == pytest.approx(np.mean(log_likelihoods[session]), abs=1e-3)
        assert log_rank == pytest.approx(np.log(np.array(ranks[session])).mean())


def test_profiles_differ_between_policies_and_samples(profiles):
    def texts(policy, decoding, sample=0):
        rows = profiles.filter(
            (pl.col("policy") == policy) & (pl.col("decoding") == decoding) & (pl.col("sample") == sample)
        )
        return rows.sort("session_id")["text"].to_list()

    greedy = texts("LangPTune", "greedy")
    assert greedy != texts("LangPTune-0", "greedy")
    assert greedy != texts("LangPTune", "sampled")
    assert texts("LangPTune", "sampled", 0) != texts("LangPTune", "sampled", 1)


def test_a_second_evaluation_gives_the_same_numbers(evaluated_run, results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(evaluated_run, copy)
    again = evaluate_run(copy, progress=False)
    for name in set(results) - {"seconds"}:
        assert again[name] == results[name]
    assert json.loads((copy / "results.json").read_text()) == again


def test_another_split_has_its_own_files(evaluated_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(evaluated_run, copy)
    before = (copy / "results.json").read_bytes()
    cards = (copy / "policy" / "README.md").read_bytes()
    results = evaluate_run(copy, split="validation", progress=False)
    assert results["split"] == "validation"
    assert read_results(copy, "validation") == results
    assert (copy / "per_user-validation.parquet").is_file()
    assert (copy / "profiles-validation.parquet").is_file()
    assert (copy / "results.json").read_bytes() == before
    assert (copy / "policy" / "README.md").read_bytes() == cards
    with pytest.raises(DataError, match="nosplit"):
        evaluate_run(copy, split="nosplit", progress=False)
    with pytest.raises(RunError, match="evaluate"):
        read_results(copy, "train")


def test_the_embedder_alone(tmp_path):
    results = evaluate_run(make_run(tmp_path, method="LangPTune-CL", samples=0), progress=False)
    assert list(results["methods"])[-1] == "LangPTune-CL"
    assert results["sampled"] == results["parts"] == results["sampled_parts"] == results["sampled_profiles"] == {}
    assert {(row["method"], row["other"]) for row in results["comparisons"]} == {
        ("LangPTune-CL", other) for other in ("LangPTune-0", "EMB-0", "MP")
    }
    assert {row["decoding"] for row in results["comparisons"]} == {"greedy"}
    assert results["profiles"]["LangPTune-CL"] == results["profiles"]["LangPTune-0"]
    assert results["methods"]["LangPTune-CL"] != results["methods"]["LangPTune-0"]


def test_the_policy_alone_on_some_sessions(tmp_path):
    run = make_run(tmp_path, method="LangPTune-RLSO", max_sessions=3)
    results = evaluate_run(run, progress=False)
    assert list(results["methods"])[-1] == "LangPTune-RLSO"
    assert results["parts"] == {}
    assert results["num_sessions"] == 3
    assert pl.read_parquet(run / "per_user.parquet")["session_id"].n_unique() == 3
    few = pl.read_parquet(run / "profiles.parquet")
    assert few["session_id"].n_unique() == 3

    assert evaluate_run(run, max_sessions=5, progress=False)["num_sessions"] == 5
    more = pl.read_parquet(run / "profiles.parquet")
    of_few = more.filter(pl.col("session_id").is_in(few["session_id"].implode()))
    assert of_few.equals(few), "the same sessions are among them, with the same profiles"


def test_a_run_that_is_not_finished_is_refused(evaluated_run, tmp_path):
    with pytest.raises(RunError, match=r"config\.toml"):
        evaluate_run(tmp_path, progress=False)
    shutil.copy(evaluated_run / "config.toml", tmp_path)
    with pytest.raises(RunError, match="--resume"):
        evaluate_run(tmp_path, progress=False)


def test_a_session_scores_the_mean_over_its_profiles():
    ranks = np.array([[1, 3], [30, 1], [7, 7]])
    log_probs = np.array([[-1.0, -2.0], [-6.0, -1.0], [-3.0, -3.0]])
    result = score_sessions(ranks, log_probs, k=20)
    assert list(result.mean) == METRICS
    assert result.per_user["log_likelihood"].tolist() == [-1.5, -3.5, -3.0]
    assert result.per_user["log_rank"] == pytest.approx([np.log(3) / 2, np.log(30) / 2, np.log(7)])
    assert result.mean["log_likelihood"] == pytest.approx(-8 / 3)
    assert "log_likelihood" not in score_sessions(ranks, None, k=20).mean
    assert result.per_user["ndcg@20"] == pytest.approx([0.75, 0.5, 1 / 3])
    assert result.mean["ndcg@20"] == pytest.approx((0.75 + 0.5 + 1 / 3) / 3)
    assert result.per_user["recall@20"].tolist() == [1.0, 0.5, 1.0]
    assert result.per_user["precision@20"] == pytest.approx([0.05, 0.025, 0.05])


def test_a_metric_that_a_method_lacks_is_none_and_in_no_comparison():
    ranks = np.array([[1], [3], [9], [2]])
    ours, popular = score_sessions(ranks, -np.log(ranks), k=20), score_sessions(ranks[::-1], None, k=20)
    users = ["a", "a", "b", "c"]
    table = summarize({"MP": popular, "LangPTune-0": ours}, ours, users)
    assert table["MP"]["log_likelihood"] is None
    assert list(table["MP"]) == list(table["LangPTune-0"]) == METRICS
    assert table["MP"]["log_rank"]["p_value"] == table["MP"]["log_rank"]["p_holm"]
    rows = compare_sessions({"LangPTune": ours.per_user, "MP": popular.per_user}, [("LangPTune", "MP")], users)
    assert [row["metric"] for row in rows] == [metric for metric in METRICS if metric != "log_likelihood"]


def test_the_untrained_policys_profiles_are_taken_from_another_run(noted_run, tmp_path):
    other, run = tmp_path / "other", tmp_path / "run"
    shutil.copytree(noted_run, run)
    shutil.copytree(noted_run, other)
    for path in (results_path(run), per_user_path(run), profiles_path(run)):
        path.unlink()
    results = evaluate_run(run, progress=False, initial_from=other)
    known = read_results(noted_run)
    assert {k: v for k, v in results.items() if k != "seconds"} == {k: v for k, v in known.items() if k != "seconds"}

    profiles = pl.read_parquet(profiles_path(other))
    marked = pl.when(pl.col("policy") == "LangPTune-0").then(pl.lit("loud cats")).otherwise(pl.col("text"))
    profiles.with_columns(marked.alias("text")).write_parquet(profiles_path(other))
    evaluate_run(run, progress=False, initial_from=other)
    texts = pl.read_parquet(profiles_path(run)).filter(pl.col("policy") == "LangPTune-0")["text"]
    assert set(texts) == {"loud cats"}


@pytest.mark.parametrize(("key", "value"), [("seed", 1), ("profile.temperature", 0.5), ("evaluation.max_sessions", 5)])
def test_profiles_of_another_policy_prompt_seed_or_session_are_not_taken(noted_run, tmp_path, key, value):
    run = tmp_path / "run"
    shutil.copytree(noted_run, run)
    config = to_toml(load_config(run / "config.toml", [f"{key}={value}"]))
    (run / "config.toml").write_text(config)
    what = {"seed": "seed", "profile.temperature": "profile", "evaluation.max_sessions": "sessions"}[key]
    with pytest.raises(RunError, match=f"they differ in {what}"):
        evaluate_run(run, progress=False, initial_from=noted_run)
