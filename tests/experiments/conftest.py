import shutil

import pytest
from tests.experiments.tiny import make_run

from langptune_rs.experiments.evaluate import evaluate_run
from langptune_rs.runs.folder import open_dataset, read_config
from langptune_rs.runs.origin import Data, write_origin


@pytest.fixture(scope="session")
def evaluated_run(tmp_path_factory):
    """A finished run with its results on the test split. Tests read it and leave it as it is."""
    run = make_run(tmp_path_factory.mktemp("evaluated"), num_users=200)  # enough for users with two test sessions
    evaluate_run(run, progress=False)
    return run


@pytest.fixture(scope="session")
def noted_run(evaluated_run, tmp_path_factory):
    """`evaluated_run` with a note of what its data held, as training leaves it."""
    run = tmp_path_factory.mktemp("noted") / "run"
    shutil.copytree(evaluated_run, run)
    write_origin(run, Data.of(open_dataset(read_config(run), run)))
    return run
