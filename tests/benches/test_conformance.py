"""What benches/conformance says of two models, and what it hands to the other libraries."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.baselines.tastes import HISTORY, tastes

from langptune_rs.baselines.interactions import item_sequences, user_items
from langptune_rs.baselines.score_method import ranks_of as ranks_here
from langptune_rs.errors import InputError

BENCHES = Path(__file__).parents[2] / "benches"


@pytest.fixture(scope="module")
def modules():
    """The scripts as modules, by name; they import each other and their neighbours."""
    names = ("conformance.exchange", "conformance.verdict", "conformance.share_torch", "conformance.results")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHES))
        yield {name.partition(".")[2]: importlib.import_module(name) for name in names}
        for name in [name for name in sys.modules if name.split(".")[0] in ("conformance", "peers")]:
            sys.modules.pop(name)


@pytest.fixture(scope="module")
def dataset():
    return tastes(90)


@pytest.fixture(scope="module")
def data(modules, dataset):
    return modules["results"].exchange_of(dataset)


def test_what_is_exchanged_comes_back(modules, data, tmp_path):
    data.save(tmp_path / "exchange.npz")
    loaded = modules["exchange"].Exchange.load(tmp_path / "exchange.npz")
    assert vars(loaded).keys() == vars(data).keys()
    for name, value in vars(data).items():
        assert np.array_equal(getattr(loaded, name), value), name
    answer = modules["exchange"].Answer(np.array([3, 1]), {"versions": {"numpy": "2"}, "seconds": 0.5})
    modules["exchange"].write_answer(tmp_path / "answer.npz", answer)
    again = modules["exchange"].read_answer(tmp_path / "answer.npz")
    assert again.ranks.tolist() == [3, 1]
    assert again.about == answer.about


def test_the_libraries_learn_from_what_our_methods_learn_from(data, dataset):
    for theirs, own in zip(data.known_sequences, item_sequences(dataset), strict=True):
        assert theirs.tolist() == own.tolist()
    theirs = {(int(user), int(item)) for user, item in data.pairs}
    chosen = user_items(dataset)
    assert len(theirs) == chosen.nnz
    assert {item for _, item in theirs} == set(chosen.indices.tolist())
    test = dataset.sessions.select("test")
    assert data.test_targets.tolist() == test.targets.tolist()
    held_out = dataset.sessions.splits.mask("test")
    assert (data.sequences[held_out, HISTORY] == -1).all()


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**16), num_values=st.integers(1, 5))
def test_they_are_ranked_as_our_methods_are(modules, seed, num_values):
    """Few different scores, so that many are equal."""
    rng = np.random.default_rng(seed)
    rows = np.argsort(rng.random((40, 12)), axis=1)
    histories, targets = rows[:, :3], rows[:, 3]
    scores = rng.integers(0, num_values, size=(40, 12)).astype(np.float32)
    ranked = modules["exchange"].ranks_of(scores, targets, histories)
    assert ranked.tolist() == ranks_here(scores, targets, histories).tolist()


def test_scores_that_are_no_numbers_are_refused(modules):
    with pytest.raises(ValueError, match="NaN"):
        modules["exchange"].ranks_of(np.array([[0.0, np.nan, 1.0]]), np.array([0]), np.array([[2]]))


@pytest.mark.parametrize(
    ("ours", "theirs", "error", "verdict"),
    [
        (0.11, 0.10, 0.004, "better"),
        (0.11, 0.10, 0.006, "as good"),
        (0.10, 0.10, 0.000, "as good"),
        (0.0951, 0.10, 0.001, "as good"),  # within 5%
        (0.0921, 0.10, 0.004, "as good"),  # within two errors
        (0.0949, 0.10, 0.0025, "worse"),
    ],
)
def test_the_verdict_is_two_errors_or_a_twentieth(modules, ours, theirs, error, verdict):
    assert modules["verdict"].Outcome(ours, theirs, error).verdict == verdict


def test_users_count_once_in_the_error(modules):
    """With one session a user it is the usual error; sessions that say the same twice say it once."""
    values = np.random.default_rng(0).normal(size=50)
    usual = values.std(ddof=1) / np.sqrt(50)
    error = modules["verdict"].clustered_error
    assert error(values, np.arange(50)) == pytest.approx(usual)
    assert error(np.repeat(values, 2), np.repeat(np.arange(50), 2)) == pytest.approx(usual)
    assert error(np.repeat(values, 2), np.arange(100)) < 0.8 * usual
    assert error(values, np.zeros(50, dtype=int)) == np.inf


def test_the_best_epoch_is_kept(modules):
    epochs, weights = modules["exchange"].BestEpoch(2), np.zeros(1)
    for score in (0.1, 0.3, 0.2, 0.3):
        assert not epochs.is_over
        weights += 1  # in place, as an optimizer does
        epochs.see(score, weights)
    assert epochs.is_over
    assert (epochs.best, epochs.score, epochs.weights.tolist()) == (2, 0.3, [2.0])


def test_a_new_user_is_ranked_as_by_our_graph_methods(modules):
    from langptune_rs.baselines.graph import ItemRows

    rng = np.random.default_rng(0)
    vectors, messages = rng.normal(size=(2, 9, 4)).astype(np.float32)
    histories = np.array([[0, 1, 2], [5, 8, 3]])
    ours = ItemRows(vectors, messages, np.float32(1)).user_vectors(histories.astype(np.int32)) @ vectors.T
    order = rng.permutation(9)  # the library numbers items otherwise
    score = modules["exchange"].by_messages(messages[order], vectors[order], order, 9)
    np.testing.assert_allclose(score(np.zeros(2, dtype=int), histories), ours, rtol=1e-5)


SCRIPT = """
import numpy as np
from conformance.exchange import answer_with

def fit(data, settings, seed):
    matrix = np.zeros((data.num_items, data.num_items))
    for items in data.known_sequences:
        matrix[np.ix_(items, items)] += settings["weight"]
    np.fill_diagonal(matrix, 0)
    return (lambda users, histories: matrix[histories].sum(axis=1)), {"seed": seed}

answer_with({"Counts": fit}, ("numpy",))
"""


def test_a_comparison_from_end_to_end(modules, dataset, data, monkeypatch, tmp_path):
    """A library that counts what was chosen together is as good as EASE where tastes are all that there is."""
    results = modules["results"]
    here = tmp_path / "benches" / "conformance"
    here.mkdir(parents=True)
    (here / "exchange.py").write_text((BENCHES / "conformance" / "exchange.py").read_text())
    (here / "with_counts.py").write_text(SCRIPT)
    binary = tmp_path / "counts" / "bin" / "python"
    binary.parent.mkdir(parents=True)
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setattr(results, "WORK", tmp_path)
    monkeypatch.setattr(results, "HERE", here)
    path = tmp_path / "exchange.npz"
    data.save(path)
    comparison = results.Comparison("EASE", {"l2": 200.0}, "counts", "Counts", "Alike.", theirs_alone={"weight": 1.0})
    measured = results.measure(comparison, dataset, path, [3])
    assert measured.outcome.ours > 0.4
    assert measured.outcome.verdict == "as good"
    assert measured.versions == {"numpy": np.__version__}
    assert measured.about == "There: seed 3."
    text = results.report([measured], data, [3])
    assert "| 1. EASE" in text
    assert "there alone weight 1.0" in text

    (here / "with_counts.py").write_text(SCRIPT.replace("+=", "-="))  # ranks the items of other tastes first
    worse = results.measure(comparison, dataset, path, [3])
    assert worse.outcome.verdict == "better"
    assert worse.outcome.theirs < 0.1

    (here / "with_counts.py").write_text("raise SystemExit('no such library')")
    failed = results.measure(comparison, dataset, path, [3])
    assert failed.outcome is None
    assert failed.about == "counts failed: no such library"
    assert "not measured" in results.report([failed], data, [3])


def test_every_setting_is_one_of_our_methods(modules):
    for comparison in modules["results"].COMPARISONS:
        config = modules["results"].find_method(comparison.method).Config
        config(**comparison.settings, **comparison.ours_alone)
        assert (BENCHES / "conformance" / f"with_{comparison.library}.py").is_file()
        pinned = (BENCHES / "conformance" / f"requirements-{comparison.library}.txt").read_text()
        assert all(line.startswith("#") or "==" in line for line in pinned.splitlines())


def test_torch_is_shared_and_nothing_is_there_twice(modules, tmp_path):
    site = tmp_path / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (site / "jinja2-1.0.dist-info").mkdir()
    linked = modules["share_torch"].share(tmp_path)
    assert {"torch", "sympy", "mpmath"} <= set(linked)
    assert "jinja2" not in linked
    names = {entry.name for entry in (tmp_path / "torch").iterdir()}
    assert {"torch", "sympy"} <= names
    assert not {"jinja2", "transformers", "numpy"} & names
    assert (site / "shared_torch.pth").read_text() == f"{tmp_path / 'torch'}\n"
    with pytest.raises(InputError, match="python -m venv"):
        modules["share_torch"].share(tmp_path / "lib")
