"""Whatever happens to a file, the command that reads it refuses it by name or reads what it says now."""

import pytest
from benches.fuzz import Figures, Project

pytestmark = pytest.mark.slow

TRIALS = {
    "recipe": 60,
    "JSON lines": 12,
    "CSV": 12,
    "parquet": 12,
    "gzip": 12,
    "RecBole": 12,
    "Amazon": 8,
    "template": 8,
    "tables of a data set": 12,
    "dataset.toml": 24,
    "history": 8,
    "run": 24,
    "trained policy": 6,
    "trained embedder": 8,
    "hashes of trained models": 6,
    "policy": 12,
    "embedder": 16,
    "adapter": 6,
    "sizes of models": 16,
    "tokenizers": 8,
    "checkpoints": 24,
    "kept profiles": 24,
    "parts of profiles": 6,
    "profiles": 6,
}
"""How many trials each kind of file gets: as many as take about two seconds."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGPTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Project(tmp_path_factory.mktemp("fuzz"))


def test_every_kind_of_file_has_trials(project: Project) -> None:
    assert project.kinds.keys() == TRIALS.keys()


@pytest.mark.parametrize("name", TRIALS)
def test_no_damage_brings_a_traceback_or_another_weight(project: Project, name: str) -> None:
    figures = Figures()
    for trial in range(TRIALS[name]):
        project.trial(project.kinds[name], f"0-{trial}", figures)
    assert not figures.faults, "\n".join(figures.faults)
    assert figures.refused > 0
