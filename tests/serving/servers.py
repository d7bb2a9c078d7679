"""Servers for tests: in this process, on a real port, and in a process of their own."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import uvicorn
from starlette.types import ASGIApp
from tests.processes import Forked, command

from langptune_rs.serving.app import make_app
from langptune_rs.serving.backend import Backend
from langptune_rs.serving.generation import Generation
from langptune_rs.serving.live_run import LiveRun
from langptune_rs.serving.monitoring import Monitoring
from langptune_rs.serving.store import ProfileStore

LOCAL = "http://127.0.0.1:8000"
JSON = {"Content-Type": "application/json"}


def backend_of(run: Path, store: Path, **generation: Any) -> Backend:
    """The backend of a run that is not loaded yet."""
    monitoring = Monitoring()
    return Backend(
        LiveRun(run, monitoring.on_encoding),
        ProfileStore.open(f"sqlite:///{store}"),
        Generation(on_written=monitoring.on_written, **generation),
        monitoring,
    )


@contextmanager
def on_a_port(app: ASGIApp) -> Iterator[httpx2.Client]:
    """A client of an application that uvicorn serves on a port of this machine, from a thread of this process."""
    config = uvicorn.Config(app, port=0, http="h11", ws="none", log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server has ended"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)


def served(loaded: Backend, folder: Path, live: LiveRun | None = None, token: str | None = None) -> Any:
    """A client of a server of its own, with the models that are in memory and an empty store.

    The server closes its queue and its store when it ends, so that it must not have those of `loaded`.
    """
    store = ProfileStore.open(f"sqlite:///{folder / 'edits.sqlite'}")
    backend = Backend(live or loaded.live, store, Generation(), loaded.monitoring)
    return on_a_port(make_app(backend, token))


class ServerProcess:
    """`langptune serve` in a process of its own, ready to answer."""

    def __init__(self, log: Path, run: Path, *arguments: str, environment: Mapping[str, str] | None = None):
        self.log = log
        quick = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})}
        self.process = Forked(command("serve", str(run), "--port", "0", *arguments), quick, log)
        self.url = self._said(r"on (http://\S+)")
        self.client = httpx2.Client(base_url=self.url, timeout=60)
        self._said("Ready")

    def _said(self, pattern: str) -> str:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text() if self.log.exists() else "")
            if found:
                return found[found.re.groups]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"{pattern} is not in {self.log.read_text()}")

    wait_for = _said

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the process at once, as a loss of power would."""
        self.process.kill()
        self.process.wait(30)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.kill()
