"""Every method by the one interface: fitted, saved, opened again."""

from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tests.baselines.test_baselines import make_dataset
from tests.experiments.tiny import make_run
from tests.processes import Forked

from langptune_rs.baselines.bert4rec import Bert4Rec
from langptune_rs.baselines.emb_cl import EmbCl
from langptune_rs.baselines.langptune import LangPTune, LangPTune0, LangPTuneRlso
from langptune_rs.baselines.lightgcn import LightGCN
from langptune_rs.baselines.llm2bert4rec import Llm2Bert4Rec
from langptune_rs.baselines.mcl import MCL
from langptune_rs.baselines.method import Method
from langptune_rs.baselines.nmf import Nmf
from langptune_rs.baselines.registry import METHODS, find_method, methods_of_run, parts_of_run
from langptune_rs.baselines.sasrec import SasRec
from langptune_rs.config import RunConfig, load_config
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.section import Section
from langptune_rs.distributed.group import end_process
from langptune_rs.errors import DataError, InputError
from langptune_rs.runs.trained import TrainedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> TrainedRun:
    return TrainedRun.open(make_run(tmp_path_factory.mktemp("methods")))


def ready(method: type[Method], run: TrainedRun, folder: Path) -> Method:
    """The method, fitted to the run's data or, where that would be a training, opened from the run."""
    if issubclass(method, LangPTune) and method is not LangPTune0:
        return method.open(run.folder, run.dataset)
    made = method(folder) if method is LangPTune0 else method()
    made.fit(run.dataset, config_of(method, run.config), seed=3)
    return made


def config_of(method: type[Method], config: RunConfig) -> Section:
    """The method's defaults with the embedder of the run, and no more components than its data allow."""
    if method is LangPTune0:
        return config
    if issubclass(method.Config, EmbedderConfig):
        return method.Config(**config.embedder.model_dump())
    of_transformer: dict[str, object] = {"hidden": 8, "num_heads": 2, "max_epochs": 2}
    small: dict[type[Method], dict[str, object]] = {
        Nmf: {"components": 8},
        LightGCN: {"dim": 8, "max_epochs": 2},
        MCL: {"dim": 8, "max_epochs": 2},
        SasRec: of_transformer,
        Bert4Rec: of_transformer,
        Llm2Bert4Rec: {**of_transformer, "embedder": config.embedder},
        EmbCl: {"embedder": config.embedder, "batch_size": 8, "iterations": 1, "steps": 2},
    }
    return method.Config(**small.get(method, {}))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_ranks_the_same_after_it_was_saved_and_opened(run, tmp_path, name):
    sessions = run.dataset.sessions.select("test")
    method = ready(METHODS[name], run, tmp_path / "fitted")
    ranks, log_probs = method.score_targets(sessions)
    assert ranks.dtype == np.int64
    assert ranks.shape == (len(sessions), 1)
    assert ranks.min() >= 1
    assert ranks.max() <= len(run.dataset.catalog) - sessions.histories.shape[1]
    saved = tmp_path / "saved"
    saved.mkdir()
    method.save(saved)
    opened = METHODS[name].open(saved, run.dataset)
    no_similarities = METHODS[name].group == "ID-based" or name in ("Random", "MP", "LLM2BERT4Rec")
    assert (log_probs is None) == no_similarities
    if log_probs is not None:
        assert log_probs.shape == ranks.shape
        assert log_probs.max() <= 0
    again = opened.score_targets(sessions)
    assert again.ranks.tolist() == ranks.tolist()
    assert again.log_probs is None if log_probs is None else again.log_probs.tolist() == log_probs.tolist()


@pytest.mark.parametrize("name", METHODS)
def test_a_grid_is_small_and_each_of_its_settings_is_valid(name):
    method = METHODS[name]
    settings = [dict(zip(method.grid, values, strict=True)) for values in product(*method.grid.values())]
    assert len(settings) <= 6
    if method.grid:
        for changed in settings:
            method.Config(**changed)


def test_who_learns_from_held_out_histories_is_said():
    learns = {name for name, method in METHODS.items() if method.learns_from_histories}
    assert learns == {name for name, method in METHODS.items() if method.group == "ID-based"} | {"MP", "LLM2BERT4Rec"}


def test_what_a_run_is_compared_with_depends_on_what_it_trained():
    names = [method.name for method in methods_of_run(load_config("quickstart"))]
    assert names == ["Random", "MP", "EMB-0", "LangPTune-0", "LangPTune"]
    assert {part: method.name for part, method in parts_of_run(load_config("quickstart")).items()} == {
        "contrastive": "LangPTune-CL",
        "rlso": "LangPTune-RLSO",
    }
    alone = load_config("quickstart", ["method=LangPTune-CL"])
    assert methods_of_run(alone)[-1].name == "LangPTune-CL"
    assert parts_of_run(alone) == {}


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"no method 'LangPTune-CI'\. Did you mean 'LangPTune-CL'\?"):
        find_method("LangPTune-CI")


def test_a_method_that_needs_ratings_refuses_data_without():
    class Rated(METHODS["MP"]):
        name = "Rated"
        needs = frozenset({"ratings"})

    with pytest.raises(DataError, match="The method Rated needs ratings"):
        Rated.check_data(make_dataset(4))
    METHODS["MP"].check_data(make_dataset(4))


def fit(config: RunConfig, data: Path, folder: Path) -> None:
    """Fit a method by a training, as one process of its own."""
    LangPTuneRlso(folder).fit(TrainedRun.open(data).dataset, config, seed=5)
    end_process(0)


def test_a_method_that_trains_leaves_a_run(run, tmp_path):
    steps = {"rlso": run.config.rlso.model_copy(update={"steps": 2}), "iterations": 1}
    log = tmp_path / "log"
    process = Forked(partial(fit, run.config.model_copy(update=steps), run.folder, tmp_path / "fitted"), {}, log)
    assert process.wait(240) == 0, log.read_text()
    fitted = TrainedRun.open(tmp_path / "fitted")
    assert (fitted.config.method, fitted.config.seed) == ("LangPTune-RLSO", 5)
    opened = LangPTuneRlso.open(fitted.folder, run.dataset)
    assert opened.score_targets(run.dataset.sessions.select("test")).ranks.min() >= 1
