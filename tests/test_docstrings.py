"""The examples in the docstrings of the public core are true, and each of its names has one."""

import doctest
import sys

import numpy as np
import pytest

import langptune_rs
from langptune_rs import evaluation

PUBLIC = [getattr(package, name) for package in (langptune_rs, evaluation) for name in package.__all__]


def examples_of(name: object) -> list[doctest.DocTest]:
    """Those of a class or function and, of a class, its methods."""
    names = vars(langptune_rs) | vars(evaluation) | vars(sys.modules[name.__module__]) | {"np": np}
    return [test for test in doctest.DocTestFinder().find(name, name.__qualname__, globs=names) if test.examples]


@pytest.mark.parametrize("name", dict.fromkeys(PUBLIC), ids=lambda name: name.__qualname__)
def test_examples(name):
    found = examples_of(name)
    assert found, "no example"
    runner = doctest.DocTestRunner(verbose=False)
    for test in found:
        assert runner.run(test, out=sys.stderr.write).failed == 0, test.name


@pytest.mark.parametrize(
    "method",
    ["ItemIndex.rank", "ItemIndex.search", "Result.confidence_interval", "Packing.balance", "Packing.collate"],
)
def test_methods_have_examples(method):
    assert method in [test.name for test in examples_of(getattr(langptune_rs, method.partition(".")[0]))]
