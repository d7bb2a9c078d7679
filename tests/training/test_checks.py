"""What is said of sizes that do not fit can be done."""

import re

import pytest

from langptune_rs.config import load_config
from langptune_rs.errors import ConfigError
from langptune_rs.training.checks import check_sizes


@pytest.mark.parametrize(("num_processes", "num_sessions"), [(1, 5), (2, 5), (3, 5), (4, 4), (4, 7)])
def test_a_batch_size_that_is_advised_is_taken(monkeypatch, num_processes, num_sessions):
    monkeypatch.setattr("langptune_rs.training.checks.world_size", lambda: num_processes)
    overrides: list[str] = []
    for section in ("contrastive", "rlso"):
        with pytest.raises(ConfigError, match=rf"{section}\.batch_size = ") as raised:
            check_sizes(load_config("quickstart", overrides), num_sessions, 100)
        most = re.search(r"Set it to at most (\d+),", str(raised.value))[1]
        overrides.append(f"{section}.batch_size={most}")
    check_sizes(load_config("quickstart", overrides), num_sessions, 100)
