"""What libraries print of their own accord."""

import sys
import warnings

import pytest
from tqdm.auto import tqdm
from transformers.utils import logging

from langptune_rs.models.quiet import quiet


def test_bars_and_output_are_hidden_inside_the_block_alone(capsys):
    with quiet():
        assert sum(tqdm(range(9), desc="Converting")) == 36
        assert sum(logging.tqdm(range(9), desc="Loading")) == 36
        print("noise")
        print("an error", file=sys.stderr)
    assert capsys.readouterr() == ("", "an error\n")
    list(tqdm(range(9), desc="Converting"))
    assert "Converting" in capsys.readouterr().err


def test_only_the_known_warning_is_hidden():
    with quiet():
        warnings.warn("`is_gradient_checkpointing` is deprecated and will be removed", FutureWarning, stacklevel=1)
        with pytest.warns(FutureWarning, match="of ours"):
            warnings.warn("one of ours", FutureWarning, stacklevel=1)
