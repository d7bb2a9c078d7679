"""What the addresses of the server work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from langptune_rs.serving.answers import Item
from langptune_rs.serving.generation import Generation, Work
from langptune_rs.serving.live_run import History, LiveRun, LoadedRun
from langptune_rs.serving.monitoring import Monitoring
from langptune_rs.serving.problems import Problem
from langptune_rs.serving.store import ProfileStore

PREFIX = "/v2"
"""What all addresses but the page's begin with."""

T = TypeVar("T")


@dataclass(frozen=True)
class Backend:
    """The run that is served, the store of edited profiles, the thread that writes, and the numbers."""

    live: LiveRun
    store: ProfileStore
    generation: Generation
    monitoring: Monitoring

    async def write(self, request: Request, work: Work[T]) -> T:
        """What `work` returns, done on the thread that writes, unless the caller leaves. See `Generation.write`."""
        return await self.generation.write(work, lambda: _left(request))

    def reload(self) -> bool:
        """See `LiveRun.reload`; what comes of it is counted."""
        try:
            is_other = self.live.reload()
        except BaseException:
            self.monitoring.on_reload("failed")
            raise
        self.monitoring.on_reload("loaded" if is_other else "unchanged")
        return is_other


async def _left(request: Request) -> None:
    """Wait until the caller has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def backend_of(request: Request) -> Backend:
    """The backend of the application that a request is to."""
    backend: Backend = request.app.state.backend
    return backend


async def run_of(request: Request) -> LoadedRun:
    """The run that answers a request. Raises `Problem` (503) while the first one is loaded."""
    run = (await backend_of(request)).live.current
    if run is None:
        raise Problem(503, "loading", "The models are being loaded. Ask again in a moment.", {"Retry-After": "1"})
    return run


Serving = Annotated[Backend, Depends(backend_of)]
Run = Annotated[LoadedRun, Depends(run_of)]


async def written(backend: Backend, request: Request, run: LoadedRun, history: History, *, trained: bool) -> str:
    """The profile of a history by the trained or the initial policy: a known one at once, or written in its turn."""
    known = run.written(history, trained=trained)
    if known is not None:
        return known
    return await backend.write(request, lambda on_token: run.write(history, trained=trained, on_token=on_token))


def excluded(run: LoadedRun, user: str | None, names: Sequence[str]) -> list[int]:
    """Indexes of the items of a user's history, and of those with these ids or titles, each once.

    Raises `DataError`, with the nearest name, for a user or an item that is not there.
    """
    history = () if user is None else run.history_of(user).items
    return list(dict.fromkeys([*history, *map(run.service.item_of, names)]))


def ranked(found: Sequence[tuple[str, str, float]]) -> list[Item]:
    """Items, the best first, as an answer has them."""
    return [
        Item(id=item_id, title=title, score=score, rank=rank) for rank, (item_id, title, score) in enumerate(found, 1)
    ]
