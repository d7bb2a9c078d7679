import pytest
from tests.experiments.tiny import make_run

from langptune_rs.experiments.evaluate import evaluate_run


@pytest.fixture(scope="session")
def evaluated_run(tmp_path_factory):
    """A finished run with its results on the test split. Tests read it and leave it as it is."""
    run = make_run(tmp_path_factory.mktemp("evaluated"), num_users=200)  # enough for users with two test sessions
    evaluate_run(run, progress=False)
    return run
