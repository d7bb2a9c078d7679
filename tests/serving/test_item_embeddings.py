"""The embeddings of a catalog are made once for an embedder and a catalog."""

from types import SimpleNamespace

import numpy as np
import pytest

from langptune_rs.models.embedder import Embedder
from langptune_rs.runs.trained import TrainedRun
from langptune_rs.serving import item_embeddings
from langptune_rs.serving.item_embeddings import embed_catalog


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LANGPTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(item_embeddings, "FEWEST", 1)
    return tmp_path / "item-embeddings"


@pytest.fixture
def run(served_run):
    return TrainedRun.open(served_run)


@pytest.fixture
def embedded(monkeypatch):
    """How many texts each call embeds."""
    calls, encode = [], Embedder.encode_items
    monkeypatch.setattr(Embedder, "encode_items", lambda self, texts: calls.append(len(texts)) or encode(self, texts))
    return calls


def test_they_are_made_once_and_are_the_same_to_the_bit(run, cache, embedded):
    _, first = embed_catalog(run, run.dataset)
    _, second = embed_catalog(run, run.dataset)
    assert embedded == [40]
    assert first.tobytes() == second.tobytes()
    assert len(list(cache.iterdir())) == 1


def test_another_embedder_or_another_catalog_has_others(run, cache, embedded, monkeypatch):
    embed_catalog(run, run.dataset)
    with monkeypatch.context() as patch:
        patch.setattr(TrainedRun, "version", "another")
        embed_catalog(run, run.dataset)
    embed_catalog(run, SimpleNamespace(catalog=run.dataset.catalog, content={"items": "others"}))
    assert embedded == [40, 40, 40]


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_file_that_holds_something_else_is_made_again(run, cache, embedded, content):
    _, first = embed_catalog(run, run.dataset)
    (file,) = cache.iterdir()
    if content is None:
        np.save(file, first[:-1])
    else:
        file.write_bytes(content)
    _, second = embed_catalog(run, run.dataset)
    assert embedded == [40, 40]
    assert first.tobytes() == second.tobytes()


def test_a_run_that_changes_meanwhile_leaves_nothing(run, cache, monkeypatch):
    versions = iter(["before", "after"])
    monkeypatch.setattr(TrainedRun, "version", property(lambda _: next(versions)))
    embed_catalog(run, run.dataset)
    assert not cache.exists()


def test_few_catalogs_are_kept_and_a_cache_that_cannot_be_written_is_no_error(run, cache, monkeypatch):
    monkeypatch.setattr(item_embeddings, "NUM_KEPT", 2)
    for version in "abc":
        monkeypatch.setattr(TrainedRun, "version", version)
        embed_catalog(run, run.dataset)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setenv("LANGPTUNE_CACHE", "/dev/null")
    assert embed_catalog(run, run.dataset)[1].shape == (40, 32)
