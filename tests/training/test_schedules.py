"""Learning rates and the order of sessions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.training.schedules import batch_rows, linear_decay


def test_linear_decay_starts_at_the_base_and_ends_before_zero() -> None:
    assert linear_decay(2e-5, 0, 10) == 2e-5
    assert linear_decay(2e-5, 5, 10) == pytest.approx(1e-5)
    assert 0 < linear_decay(2e-5, 9, 10) <= 2e-6


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
def test_batches_of_an_epoch_hold_every_row_once(num_rows: int, batch_size: int, seed: int) -> None:
    count = num_rows  # batches whose rows make batch_size whole epochs
    stream = np.concatenate([batch_rows(num_rows, batch_size, b, seed) for b in range(count)])
    epochs = stream.reshape(batch_size, num_rows)
    assert (np.sort(epochs, axis=1) == np.arange(num_rows)).all()


def test_order_follows_the_seed() -> None:
    assert (batch_rows(100, 10, 3, seed=1) == batch_rows(100, 10, 3, seed=1)).all()
    assert (batch_rows(100, 10, 3, seed=1) != batch_rows(100, 10, 3, seed=2)).any()
