"""A run is opened from any folder, and when it has moved with what it names."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tests.experiments.tiny import make_models, write_source

from langptune_rs.config import RunConfig, load_config, to_toml
from langptune_rs.config.data import make_config
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import load, prepare, resolve_config
from langptune_rs.data.store.folder import INFO
from langptune_rs.errors import RunError
from langptune_rs.files import file_hash
from langptune_rs.runs.folder import CONFIG, note_data, open_dataset, opened_run, read_config
from langptune_rs.runs.origin import ORIGIN
from langptune_rs.runs.paths import absolute_paths
from langptune_rs.runs.trained import TrainedRun
from langptune_rs.training.start import started_run

KEYS = ("data.source", "data.template", "policy.model", "embedder.model")


def values(config: RunConfig) -> list[str]:
    return [getattr(getattr(config, section), name) for section, name in (key.split(".") for key in KEYS)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project: a data set with a template of the user's own, models in a folder of its own, and no run yet."""
    project = tmp_path_factory.mktemp("made")
    (project / "org").mkdir()
    for model in make_models(project):
        model.rename(project / "org" / model.name)
    (project / "mine.jinja").write_text('{% set things = "stories" %}')
    logs = write_source(project / "logs")
    settings = {"max_item_tokens": None, "max_history_tokens": None, "template": str(project / "mine.jinja")}
    prepare(logs, project / "data" / "prepared", make_config(**settings))
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to move, which is the working folder. The template that the data was made with is only in the data set."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def recipe(**data: str) -> RunConfig:
    """Everything by a relative path; the models' look like hub ids."""
    overrides = ["data.source=data/prepared", "policy.model=org/tiny-policy", "embedder.model=org/tiny-embedder"]
    overrides += [f"data.{key}={value}" for key, value in data.items()]
    return load_config("quickstart", ["data.windows=last", *overrides])


def start(output: Path = Path("runs/one"), **data: str) -> Path:
    """A run as it is when it begins to train."""
    with started_run(recipe(**data), output):
        note_data(output, open_dataset(read_config(output), output))
    return output.absolute()


def test_a_run_writes_absolute_paths(project, tmp_path, monkeypatch):
    run = start(template="mine.jinja")
    monkeypatch.chdir(tmp_path)
    source, template, *models = values(load_config(run / CONFIG))
    assert [source, *models] == [
        str(project / path) for path in ("data/prepared", "org/tiny-policy", "org/tiny-embedder")
    ]
    assert Path(template).is_absolute()
    assert Path(template).read_text() == (project / "mine.jinja").read_text()
    assert values(read_config(run)) == [source, template, *models]
    assert TrainedRun.open(run, []).dataset.content == load(project / "data" / "prepared").content


@pytest.mark.parametrize("stays", [True, False])
def test_a_run_that_moved_with_what_it_names_is_found(project, tmp_path, monkeypatch, stays):
    start()
    moved = tmp_path / "else" / "where"
    shutil.copytree(project, moved)
    monkeypatch.chdir(tmp_path)
    if not stays:
        shutil.rmtree(project)
    home = project if stays else moved
    run = moved / "runs" / "one"
    config = read_config(run)
    assert [config.data.source, config.policy.model, config.embedder.model] == [
        str(home / path) for path in ("data/prepared", "org/tiny-policy", "org/tiny-embedder")
    ]
    assert len(TrainedRun.open(run, []).dataset.sessions) == 60
    TrainedRun.open(run, []).embedder(trained=False)
    with started_run(load_config(run / CONFIG), run, resume=True):
        pass
    assert load_config(run / CONFIG) == read_config(run)
    assert json.loads((run / ORIGIN).read_text())["folder"] == str(run)
    if not stays:
        again = tmp_path / "again"
        moved.rename(again)
        assert read_config(again / "runs" / "one").data.source == str(again / "data" / "prepared")


def test_data_may_stand_elsewhere_if_it_is_the_same(project, tmp_path):
    run = start()
    (project / "data" / "prepared").rename(tmp_path / "shelf")
    with pytest.raises(RunError, match=r"data\.source is .*data/prepared\. Put it back, or write where it is now into"):
        open_dataset(read_config(run), run)
    with started_run(load_config(run / CONFIG, [f"data.source={tmp_path / 'shelf'}"]), run, resume=True):
        assert open_dataset(read_config(run), run).info["source"]
    assert read_config(run).data.source == str(tmp_path / "shelf")


@pytest.mark.parametrize("where", ["the working folder", "the run's project"])
def test_a_relative_path_of_an_older_version_is_found(project, tmp_path, monkeypatch, where):
    run = project / "runs" / "old"
    run.mkdir(parents=True)
    (run / CONFIG).write_text(to_toml(recipe(template="mine.jinja")))
    if where == "the run's project":
        monkeypatch.chdir(tmp_path)
    assert values(read_config(run)) == [
        str(project / path) for path in ("data/prepared", "mine.jinja", "org/tiny-policy", "org/tiny-embedder")
    ]


def test_a_run_of_an_older_version_goes_on(project, tmp_path, monkeypatch):
    """Its template is named by a path that meant something where the data was prepared; items had no prompt then."""
    info = project / "data" / "prepared" / INFO
    (text,) = re.findall(r'template = ".*mine.jinja"', info.read_text())
    info.write_text(info.read_text().replace(text, 'template = "there/mine.jinja"'))
    config = recipe(template="there/mine.jinja").model_copy(update={"embedder": EmbedderConfig(query_prompt="q: ")})
    config = config.model_copy(
        update={"data": resolve_config(config.data).model_copy(update={"template": "there/mine.jinja"})}
    )
    run = project / "runs" / "old"
    run.mkdir(parents=True)
    (run / CONFIG).write_text(to_toml(config))
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    with started_run(load_config(run / CONFIG), run, resume=True):
        note_data(run, open_dataset(read_config(run), run))
    now = load_config(run / CONFIG)
    assert (now.embedder.query_prompt, now.embedder.item_prompt) == ("q: ", "")
    assert now.data.source == str(project / "data" / "prepared")
    assert now.data.template == str(project / "data" / "prepared" / "template.jinja")
    with started_run(now, run, resume=True):
        pass


def test_names_are_no_paths(project, tmp_path, monkeypatch):
    names = ["data.source=ml-1m", "data.template=books", "policy.model=SmolLM2-135M-instruct", "embedder.model=org/hub"]
    config = load_config("quickstart", names)
    for name in ("books", "SmolLM2-135M-instruct", "ml-1m"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute_paths(config) == config
    (tmp_path / "org" / "hub").mkdir(parents=True)
    assert absolute_paths(config).embedder.model == str(tmp_path / "org" / "hub")
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = load_config("quickstart", ["policy.model=~/org/hub", "data.source=~/org", "embedder.model=./missing"])
    assert values(absolute_paths(at_home)) == [str(tmp_path / "org"), None, str(tmp_path / "org" / "hub"), "./missing"]


def test_a_hub_model_is_not_taken_from_a_folder_of_its_name(project, tmp_path, monkeypatch):
    run = start()
    config = load_config(run / CONFIG, ["policy.model=org/of-the-hub"])
    (run / CONFIG).write_text(to_toml(config))
    assert read_config(run).policy.model == "org/of-the-hub"
    (tmp_path / "org" / "of-the-hub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"policy\.model = 'org/of-the-hub' is a hub id .* Run the command in another"):
        read_config(run)


def test_opening_a_run_writes_nothing(project):
    run = start()
    before = {path: file_hash(path) for path in run.rglob("*") if path.is_file()}
    open_dataset(read_config(run), run)
    assert before == {path: file_hash(path) for path in run.rglob("*") if path.is_file()}


def test_another_configuration_is_still_refused(project):
    run = start()
    with (
        pytest.raises(RunError, match="started with another configuration"),
        opened_run(run, load_config(run / CONFIG, ["seed=3"]), resume=True, overwrite=False),
    ):
        pass


@pytest.mark.parametrize("recipe_given", [False, True])
def test_a_name_stays_a_name_whatever_is_prepared_under_it(project, recipe_given):
    """The run prepared its data itself. Then the working folder gets another data set, called as the source is."""
    run = project / "runs" / "one"
    given = recipe(source="ml-100k", max_history_tokens="none")
    with started_run(given, run):
        shutil.copytree(project / "data" / "prepared", run / "data")
        own = load(run / "data")
        note_data(run, own)
    settings = {"max_item_tokens": None, "max_history_tokens": None, "seed": 5}
    prepare(project / "logs", project / "ml-100k", make_config(**settings))
    with started_run(given if recipe_given else load_config(run / CONFIG), run, resume=True):
        assert load_config(run / CONFIG).data.source == "ml-100k"
        assert open_dataset(read_config(run), run).content == own.content
    (run / ORIGIN).unlink()  # as in a run of an older version
    assert read_config(run).data.source == "ml-100k"
    shutil.rmtree(run / "data")
    assert read_config(run).data.source == str(project / "ml-100k")
    new = project / "runs" / "two"
    with started_run(recipe(source="ml-100k"), new):
        assert load_config(new / CONFIG).data.source == str(project / "ml-100k")
    with started_run(recipe(source="ml-100k"), new, resume=True):
        pass
