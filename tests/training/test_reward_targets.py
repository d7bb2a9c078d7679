"""What a run says of the targets that its reward averages over."""

import numpy as np

from langptune_rs.training.reward_targets import tell_of_fewer


def of_lengths(*lengths):
    return [np.arange(length) for length in lengths]


def test_how_many_sessions_have_fewer_is_said_in_one_line(capsys):
    tell_of_fewer(of_lengths(1, 4, 2, 4), 4)
    said = capsys.readouterr().err
    assert said.startswith("data.num_targets = 4: 2 of 4 training sessions have fewer targets, ")
    assert said.endswith("A session has 2.8 on average.\n")
    assert said.count("\n") == 1


def test_where_all_have_enough_nothing_is_said(capsys):
    tell_of_fewer(of_lengths(3, 3), 3)
    assert capsys.readouterr().err == ""


def test_where_none_has_a_second_one_what_gives_more_is_said(capsys):
    tell_of_fewer(of_lengths(1, 1), 3)
    said = capsys.readouterr().err
    assert said.startswith("data.num_targets = 3: 2 of 2 training sessions have fewer targets, ")
    assert 'windows = "all"' in said
    assert said.count("\n") == 1
