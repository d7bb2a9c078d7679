"""What `langptune train` hands on, and how it ends. Training itself is tested elsewhere."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from langptune_rs.config import RunConfig, load_config, to_toml
from langptune_rs.errors import TrainingError


@dataclass
class Trainings:
    """Stands in for both ways to train; keeps what it was asked."""

    calls: list[tuple] = field(default_factory=list)
    error: BaseException | None = None
    exit_code: int = 0

    def train(self, config: RunConfig, output: Path, *, resume: bool, overwrite: bool) -> None:
        self.calls.append((config, output, 1, resume, overwrite))
        if self.error:
            raise self.error

    def launch(self, config: RunConfig, output: Path, *, nproc, hostfile, resume: bool, overwrite: bool) -> int:
        self.calls.append((config, output, hostfile or nproc, resume, overwrite))
        return self.exit_code


@pytest.fixture
def trainings(monkeypatch) -> Trainings:
    trainings = Trainings()
    monkeypatch.setattr("langptune_rs.experiments.run.run", trainings.train)
    monkeypatch.setattr("langptune_rs.experiments.processes.run_in_processes", trainings.launch)
    return trainings


def test_the_default_is_quickstart_into_its_own_folder(langptune, trainings):
    assert langptune("train").exit_code == 0
    assert trainings.calls == [(load_config("quickstart"), Path("runs/quickstart"), 1, False, False)]


def test_recipe_overrides_output_and_overwrite_are_handed_on(langptune, trainings):
    langptune("train", "--config", "gemma-2b", "--set", "seed=4", "--set", "rlso.eta=2", "--output", "x", "--overwrite")
    expected = load_config("gemma-2b", ["seed=4", "rlso.eta=2"])
    assert trainings.calls == [(expected, Path("x"), 1, False, True)]


def test_a_recipe_file_names_the_folder(langptune, trainings, tmp_path):
    (tmp_path / "mine.toml").write_text("seed = 9\n")
    langptune("train", "--config", tmp_path / "mine.toml")
    config, output, *_ = trainings.calls[0]
    assert (config.seed, output) == (9, Path("runs/mine"))


def test_resume_takes_the_configuration_of_the_run(langptune, trainings, tmp_path):
    started = load_config("gemma-2b", ["seed=5"])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.toml").write_text(to_toml(started))
    langptune("train", "--output", "x", "--resume")
    langptune("train", "--output", "y", "--resume")
    assert trainings.calls == [
        (started, Path("x"), 1, True, False),
        (load_config("quickstart"), Path("y"), 1, True, False),
    ]


@pytest.mark.parametrize("exit_code", [0, 2, 130])
def test_several_processes_are_launched_and_their_exit_code_is_passed_on(langptune, trainings, exit_code):
    trainings.exit_code = exit_code
    assert langptune("train", "--nproc", "3", "--resume").exit_code == exit_code
    assert trainings.calls == [(load_config("quickstart"), Path("runs/quickstart"), 3, True, False)]


def test_ctrl_c_ends_with_130(langptune, trainings):
    trainings.error = KeyboardInterrupt()
    assert langptune("train").exit_code == 130


def test_an_error_of_training_is_one_line(error_of, trainings):
    trainings.error = TrainingError("The loss is nan at step 7.")
    assert error_of("train") == "error: The loss is nan at step 7."


def test_no_process_is_no_training(langptune, trainings):
    assert langptune("train", "--nproc", "0").exit_code == 2
    assert trainings.calls == []


def test_a_hostfile_is_handed_on(langptune, trainings):
    assert langptune("train", "--hostfile", "hosts").exit_code == 0
    assert trainings.calls == [(load_config("quickstart"), Path("runs/quickstart"), Path("hosts"), False, False)]


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (("--nproc", "2", "--hostfile", "hosts"), {}, "give only one"),
        (("--nproc", "2"), {"SLURM_STEP_NUM_TASKS": "4"}, "leave it out"),
        (("--hostfile", "hosts"), {"SLURM_STEP_NUM_TASKS": "4"}, "leave it out"),
    ],
)
def test_two_ways_to_start_processes_contradict(langptune, trainings, monkeypatch, options, environment, message):
    monkeypatch.delenv("RANK", raising=False)  # an earlier test of this process may have trained
    slurm = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "n1", "SLURM_JOB_ID": "1"}
    for name, value in (slurm | environment).items():
        monkeypatch.setenv(name, value)
    result = langptune("train", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert trainings.calls == []
