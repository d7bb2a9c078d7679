"""What a run says of the targets that its reward averages over."""

import numpy as np
import pytest

from langptune_rs.errors import ConfigError
from langptune_rs.training.reward_targets import check_targets


def of_lengths(*lengths):
    return [np.arange(length) for length in lengths]


def test_how_many_sessions_have_fewer_is_said_in_one_line(capsys):
    check_targets(of_lengths(1, 4, 2, 4), 4)
    said = capsys.readouterr().err
    assert said.startswith("data.num_targets = 4: 2 of 4 training sessions have fewer targets, ")
    assert said.endswith("A session has 2.8 on average.\n")
    assert said.count("\n") == 1


def test_where_all_have_enough_nothing_is_said(capsys):
    check_targets(of_lengths(3, 3), 3)
    assert capsys.readouterr().err == ""


def test_where_none_has_a_second_one_the_way_out_is_said():
    with pytest.raises(ConfigError, match=r'no user of the 2 training .* windows = "all".* data\.num_targets = 1\.'):
        check_targets(of_lengths(1, 1), 3)
