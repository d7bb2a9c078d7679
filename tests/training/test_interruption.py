"""Writing that can be stopped, and what is said when it runs out of memory."""

import signal
from typing import Any

import pytest

from langptune_rs.config import load_config
from langptune_rs.errors import TrainingError
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.training.interruption import Interrupted, InterruptibleWriter, Interruption


@pytest.fixture
def interruption():
    return Interruption()


@pytest.fixture
def writer(interruption) -> InterruptibleWriter:
    nothing: Any = None  # what writes is replaced below
    return InterruptibleWriter(nothing, nothing, load_config("quickstart"), interruption)


def test_memory_that_is_lost_while_profiles_are_written_names_the_budget_of_writing(writer, monkeypatch):
    """Also in the middle of a phase that trains the policy, whose own key would not help."""

    def fail(*arguments: object, **options: object) -> Profiles:
        raise MemoryError

    monkeypatch.setattr("langptune_rs.rollout.writer.write_profiles", fail)
    with pytest.raises(TrainingError, match=r"while writing profiles.*profile\.token_budget = 16384"):
        writer.write([[1, 2]], num_samples=2, seeds=[0], keep_states=True)


def test_it_stops_after_the_batch_in_hand(writer, interruption, monkeypatch):
    done = []

    def write(*arguments: object, on_batch: Any, **options: object) -> Profiles:
        on_batch([[1]])
        signal.raise_signal(signal.SIGINT)
        on_batch([[2]])
        raise AssertionError("goes on")

    monkeypatch.setattr("langptune_rs.rollout.writer.write_profiles", write)
    with interruption.listening(), pytest.raises(Interrupted):
        writer.write([[1], [2], [3]], greedy=True, on_batch=done.append)
    assert done == [[[1]], [[2]]]
    with pytest.raises(Interrupted):
        interruption.raise_if_asked()
