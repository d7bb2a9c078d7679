"""The application: the addresses, what stands before them, and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from langptune_rs import __version__
from langptune_rs.serving.answers import ConflictAnswer, ErrorAnswer
from langptune_rs.serving.backend import PREFIX, Backend
from langptune_rs.serving.guards import Guard
from langptune_rs.serving.monitoring import Monitored
from langptune_rs.serving.page import add_page, page_files
from langptune_rs.serving.problems import add_handlers
from langptune_rs.serving.routes import about, items, profiles, rankings, users

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No request that can be read."},
    401: {"description": "The token is missing or wrong."},
    403: {"description": "A page of another origin asks."},
    404: {"description": "There is no such user or item; the nearest is named."},
    409: {"description": "The profile has another version than was expected.", "model": ConflictAnswer},
    413: {"description": "The request is too large."},
    415: {"description": "The body is no JSON."},
    421: {"description": "The host is not this server's."},
    422: {"description": "The request is not valid."},
    424: {"description": "The models cannot do it."},
    429: {"description": "Too many wait for a text already."},
    503: {"description": "The models are being loaded, or the store does not answer."},
    504: {"description": "The text was not written in time."},
    507: {"description": "The store has no room."},
}
"""Every answer that says why there is no other one."""


def make_app(backend: Backend, token: str | None = None, on_start: Callable[[], object] = lambda: None) -> FastAPI:
    """The application over a backend, which it closes when it ends.

    `token` is what callers must show; None for a server that only this machine reaches. `on_start` is called when the
    application starts.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        on_start()
        yield
        backend.generation.close()
        backend.store.close()

    app = FastAPI(
        title="LangPTune",
        version=__version__,
        description="User profiles in plain language: written, edited, and ranked by.",
        lifespan=lifespan,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its scripts come from another host
        redoc_url=None,
        redirect_slashes=False,
        responses={status: {"model": ErrorAnswer, **problem} for status, problem in _PROBLEMS.items()},
    )
    app.state.backend = backend
    for routes in (about, users, profiles, rankings, items):
        app.include_router(routes.router)
    app.include_router(about.metrics_router)
    files = page_files()
    add_page(app, files)
    add_handlers(app)
    app.add_middleware(Guard, token=token, page=frozenset(files))
    app.add_middleware(Monitored, monitoring=backend.monitoring)
    return app
