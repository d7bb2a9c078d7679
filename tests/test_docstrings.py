"""The examples in the docstrings of the public core are true, and each of its names has one."""

import doctest
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import is_dataclass

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


def documented(name: object) -> list[tuple[Callable, str]]:
    """(function, its documentation) of a function, or of a class's constructor and its public methods."""
    if inspect.isfunction(name):
        return [(name, inspect.getdoc(name))]
    methods = [method for key, method in vars(name).items() if inspect.isfunction(method) and key[0] != "_"]
    own = [] if is_dataclass(name) else [(name.__init__, inspect.getdoc(name))]
    return own + [(method, inspect.getdoc(method)) for method in methods]


@pytest.mark.parametrize("name", dict.fromkeys(PUBLIC), ids=lambda name: name.__qualname__)
def test_arguments_are_documented(name):
    """All of them where there is a section of arguments, which more than two need, and no blank line parts it."""
    for function, doc in documented(name):
        parameters = set(inspect.signature(function).parameters) - {"self"}
        section = re.search(r"^Args:\n((?:    .*\n)+)", doc + "\n", re.MULTILINE)
        if section or len(parameters) > 2:
            assert section, f"{function.__qualname__} has no section of arguments"
            names = re.findall(r"^    (\w[\w, ]*):", section[1], re.MULTILINE)
            assert set(re.findall(r"\w+", " ".join(names))) == parameters, function.__qualname__


@pytest.mark.parametrize(
    "method",
    [
        "ItemIndex.rank",
        "ItemIndex.search",
        "Result.confidence_interval",
        "Result.confidence_intervals",
        "Packing.balance",
        "Packing.collate",
    ],
)
def test_methods_have_examples(method):
    assert method in [test.name for test in examples_of(getattr(langptune_rs, method.partition(".")[0]))]
