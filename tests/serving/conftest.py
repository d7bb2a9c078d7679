"""One tiny run, and what serves it, for all tests of the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from tests.experiments.tiny import make_run
from tests.serving.servers import LOCAL, backend_of

from langptune_rs.serving.app import make_app
from langptune_rs.serving.service import ProfileService


@pytest.fixture(scope="session")
def served_run(tmp_path_factory):
    """A run's folder, in which no test changes anything."""
    return make_run(tmp_path_factory.mktemp("served"), samples=0)


@pytest.fixture(scope="session")
def loaded(served_run, tmp_path_factory):
    """A backend with the models in memory, whose store is its own."""
    backend = backend_of(served_run, tmp_path_factory.mktemp("store") / "edits.sqlite")
    backend.live.reload()
    return backend


@pytest.fixture(scope="session")
def service(served_run):
    """What answers without a server."""
    return ProfileService.open(served_run)


@pytest.fixture
def client(loaded) -> Iterator[TestClient]:
    """A caller on this machine. The application is not started, so that it leaves the backend open."""
    return TestClient(make_app(loaded), base_url=LOCAL)
