"""Who may ask, and with what: the token, the host, the origin, and the size and type of a body."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langptune_rs.serving.problems import Problem

MAX_BODY = 1 << 20
"""Bytes of a request's body."""
HEALTH = ("/v2/health/live", "/v2/health/ready")
"""What asks whether a server is there may do so without a token."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""On every answer. Nothing but this server's own files is loaded, and no script stands in a page."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


class Guard:
    """An application that only those reach who may.

    With a token, everything but the page's own files and the health asks for it. Without one the server stands on a
    loopback address, where the danger is a page of another site in the same browser. Such a page may reach the port,
    by its own name or by one that it has pointed at this machine: so the host must be this machine, and the origin
    this server.
    """

    def __init__(self, app: ASGIApp, token: str | None, page: Collection[str]):
        """`page` are the paths that need no token."""
        self._app, self._page = app, page
        self._digest = None if token is None else _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_started, size = False, 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise _too_large()
            return message

        async def guarded(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
            await self._app(scope, limited, guarded)
        except Problem as problem:
            if is_started:
                raise
            await problem.response()(scope, receive, guarded)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        """Raise the `Problem` of a request that may not be answered."""
        if self._digest is None:
            _check_is_local(headers, is_page=path in self._page)
        elif path not in self._page and path not in HEALTH:
            _check_token(headers, self._digest)
        if method in ("POST", "PUT", "PATCH", "DELETE"):
            _check_body(headers)


def _check_token(headers: Headers, digest: bytes) -> None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(_digest(token.strip()), digest):
        raise Problem(
            401,
            "unauthorized",
            "This server answers only with its token: send the header `Authorization: Bearer TOKEN`.",
            {"WWW-Authenticate": "Bearer"},
        )


def _digest(token: str) -> bytes:
    """Of one length for any token, so that the time of a comparison does not tell how long the right one is."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _check_is_local(headers: Headers, *, is_page: bool) -> None:
    host = headers.get("host", "")
    if not is_loopback(_without_port(host)):
        raise Problem(
            421,
            "wrong_host",
            "This server answers on this machine's own addresses only. To serve others, start it with --host and "
            "--token-env.",
        )
    origin = headers.get("origin")
    is_foreign = origin is not None and origin != f"http://{host}"
    # Following a link to the page is not foreign use; reading the answers from another site's page is.
    is_foreign |= not is_page and headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if is_foreign:
        raise Problem(403, "wrong_origin", "A page of another origin may not use this server.")


def _without_port(host: str) -> str:
    """The host of a Host header; empty for a header that is none."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(:[0-9]*)?", host)
    return found[1] if found else ""


def _check_body(headers: Headers) -> None:
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > MAX_BODY:
        raise _too_large()
    has_body = length != "0" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and kind != "application/json":
        raise Problem(415, "invalid", "Send the body as JSON, with the header `Content-Type: application/json`.")


def _too_large() -> Problem:
    return Problem(413, "too_large", f"The body has more than {MAX_BODY:,} bytes.", {"Connection": "close"})
