"""What the server does, in numbers for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_OTHER = "other"
"""The address in the numbers of a request to no known one: a caller cannot make up new ones."""


class Monitoring:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "langptune_requests",
            "Requests that were answered.",
            ["method", "address", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "langptune_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["method", "address"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._open = Gauge("langptune_open_requests", "Requests that are being answered.", registry=self.registry)
        self._written = Histogram(
            "langptune_writing_seconds", "Seconds that a text took to write.", buckets=_SECONDS, registry=self.registry
        )
        self._encoded = Histogram(
            "langptune_encoding_texts", "Texts in a batch of the embedder.", buckets=_SIZES, registry=self.registry
        )
        self.waiting = Gauge("langptune_writing_waiting", "Callers that wait for a text.", registry=self.registry)
        self._reloads = Counter(
            "langptune_reloads", "Reloads, by what came of them.", ["outcome"], registry=self.registry
        )

    def on_written(self, seconds: float) -> None:
        """A text was written."""
        self._written.observe(seconds)

    def on_encoding(self, size: int) -> None:
        """A batch of texts goes through the embedder."""
        self._encoded.observe(size)

    def on_reload(self, outcome: str) -> None:
        """A reload ended: loaded, unchanged or failed."""
        self._reloads.labels(outcome).inc()

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)

    def on_request(self, method: str, address: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, address, str(status)).inc()
        self._seconds.labels(method, address).observe(seconds)


class Monitored:
    """An application whose requests are counted."""

    def __init__(self, app: ASGIApp, monitoring: Monitoring):
        self._app, self._monitoring = app, monitoring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._monitoring._open.track_inprogress():
            try:
                await self._app(scope, receive, counted)
            finally:
                method = scope["method"] if scope["method"] in _METHODS else _OTHER
                address = getattr(scope.get("route"), "path", _OTHER)
                self._monitoring.on_request(method, address, status, time.perf_counter() - start)


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
