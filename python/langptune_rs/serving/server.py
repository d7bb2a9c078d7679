"""The process that serves a run: its address, its signals, and its beginning and end."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

from langptune_rs.errors import ConfigError, LangptuneError
from langptune_rs.models.memory import set_libraries_aside
from langptune_rs.serving.app import make_app
from langptune_rs.serving.backend import Backend
from langptune_rs.serving.generation import Generation
from langptune_rs.serving.guards import is_loopback
from langptune_rs.serving.live_run import LiveRun
from langptune_rs.serving.monitoring import Monitoring
from langptune_rs.serving.service import ProfileService
from langptune_rs.serving.store import ProfileStore

MIN_TOKEN = 16
"""Characters of a token, which others must not guess."""
_SECONDS_TO_END = 5
"""How long requests in progress may still take when the server ends."""
_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "langptune.serving": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}
log = logging.getLogger("langptune.serving")


def serve(
    run: Path, *, host: str = "127.0.0.1", port: int = 8000, token_env: str | None = None, store: str | None = None
) -> None:
    """Serve a run until a signal ends it. With port 0 the system chooses one, which the first line on stderr names.

    The address is taken and the store opened first. Then requests are answered, with 503 until the models are loaded.
    SIGHUP loads what `run`, a folder or a link to one, holds then, and puts it in place of the current run.

    Args:
        run: the folder of a finished run, or a link to one.
        host: an address of this machine. One that others reach needs a token.
        port: 0 to 65535.
        token_env: the environment variable that holds the token.
        store: an SQLAlchemy URL of SQLite or PostgreSQL; a file in the run's folder by default.

    Raises:
        ConfigError: for an address that cannot be taken, or one that others reach without a token.
        StoreError: for a store that cannot be used.
        RunError: when `run` holds no finished run, and what loading it raises.
    """
    token = _token(host, token_env)
    with _listening(host, port) as listener:
        ProfileService.open(run.resolve())  # whether there is a run at all
        monitoring = Monitoring()
        backend = Backend(
            LiveRun(run, monitoring.on_encoding),
            ProfileStore.in_run(run.resolve()) if store is None else ProfileStore.open(store),
            Generation(on_written=monitoring.on_written),
            monitoring,
        )
        failures: list[LangptuneError] = []

        def load() -> None:
            try:
                set_libraries_aside()
                backend.live.reload()
                log.info("Ready: the models are loaded, version %s", _version(backend))
            except LangptuneError as error:
                failures.append(error)
                server.should_exit = True
            except BaseException:
                server.should_exit = True
                raise

        app = make_app(backend, token, Thread(target=load, name="loading", daemon=True).start)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                log_config=_LOGGING,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_SECONDS_TO_END,
            )
        )
        log.info("Serving %s on %s", run, _url(listener))
        with _reloading_on_hangup(backend), suppress(KeyboardInterrupt):
            server.run([listener])
        if failures:
            raise failures[0]


def _token(host: str, name: str | None) -> str | None:
    """The token of the environment variable `name`. Raises `ConfigError` where one is needed and none is there."""
    if name is None:
        if not is_loopback(host):
            raise ConfigError(
                f"--host {host} is an address that others reach, so callers must show a token. Put one of "
                f"{MIN_TOKEN} characters or more into an environment variable and name it: --token-env NAME."
            )
        return None
    token = os.environ.get(name, "").strip()
    if len(token) < MIN_TOKEN:
        have = "is not set" if not token else f"has {len(token)} characters"
        raise ConfigError(
            f"--token-env {name}: the environment variable {have}, and a token has {MIN_TOKEN} or more. Make one with "
            '`python -c "import secrets; print(secrets.token_urlsafe())"`.'
        )
    return token


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises `ConfigError` for an address that cannot be taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error}.") from error
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            advice = "Stop what serves there, or give another --port."
            if error.errno != errno.EADDRINUSE:
                advice = "Give another --host or --port."
            raise ConfigError(f"{host} port {port} cannot be served on: {error.strerror}. {advice}") from error
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _reloading_on_hangup(backend: Backend) -> Iterator[None]:
    """Inside the block SIGHUP loads another run, beside the requests."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return

    def reload() -> None:
        try:
            is_other = backend.reload()
        except LangptuneError as error:
            log.error("The run that is served stays: %s", error)
        else:
            log.info("Reloaded: version %s%s", _version(backend), "" if is_other else ", as before")

    before = signal.signal(signal.SIGHUP, lambda *_: Thread(target=reload, name="reloading", daemon=True).start())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _version(backend: Backend) -> str:
    return "" if backend.live.current is None else backend.live.current.version
