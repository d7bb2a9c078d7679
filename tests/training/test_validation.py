"""Validation logs what an evaluation of the same models on the same sessions finds."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from tests.experiments.tiny import make_run

from langptune_rs.experiments.evaluate import evaluate_run
from langptune_rs.runs.trained import TrainedRun
from langptune_rs.training.ranking import Ranking
from langptune_rs.training.subjects import profiles_of_sessions
from langptune_rs.training.validation import Validation


def test_validation_finds_what_the_evaluation_finds(tmp_path):
    run = TrainedRun.open(make_run(tmp_path, samples=0))
    models = SimpleNamespace(embedder=run.embedder(), whole=lambda model: nullcontext())
    ranking = Ranking(run.config, models, run.dataset.catalog)
    subjects = profiles_of_sessions(run.config, run.dataset).validation
    found = Validation(run.config, subjects, models, run.writer(), ranking).scores(0)
    results = evaluate_run(run.folder, split="validation", progress=False)
    expected = {
        f"validation/{metric}": results["methods"]["LangPTune"][metric]["mean"]
        for metric in ("ndcg@20", "ndcg", "log_likelihood", "log_rank")
    }
    expected["validation/copied_share"] = results["profiles"]["LangPTune"]["copied_share"]
    assert found == pytest.approx(expected)
    assert found["validation/log_likelihood"] < 0 < found["validation/log_rank"]
