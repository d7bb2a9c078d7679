"""What goes wrong, as an answer: a status, a sentence for a person, and a word for a program."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from langptune_rs.errors import ContextError, DataError, InputError, LangptuneError, ModelError, RunError
from langptune_rs.serving.answers import Version
from langptune_rs.serving.store import ConflictError, StoreError, StoreFullError, StoreUnavailableError

log = logging.getLogger("langptune.serving")


class Problem(HTTPException):
    """An answer that says why there is no other one."""

    def __init__(self, status: int, error_type: str, error: str, headers: Mapping[str, str] | None = None):
        super().__init__(status, error, headers)
        self.error_type = error_type

    def response(self, **more: Any) -> Response:
        """The answer. What else it says stands beside the error."""
        content = {"error": self.detail, "error_type": self.error_type, **more}
        return _response(self.status_code, content, self.headers or {})


class TooLargeError(LangptuneError):
    """A request asks for more than an answer may take."""


STATUSES: tuple[tuple[type[LangptuneError], int, str], ...] = (
    (TooLargeError, 413, "too_large"),
    (ContextError, 413, "too_large"),
    (InputError, 422, "invalid"),
    (DataError, 404, "unknown"),
    (ConflictError, 409, "conflict"),
    (StoreFullError, 507, "store_full"),
    (StoreUnavailableError, 503, "store"),
    (StoreError, 503, "store"),
    (ModelError, 424, "model"),
    (RunError, 424, "model"),
)
"""The answer to each kind of error; the first that fits counts. Any other `LangptuneError` is 422."""
_TOO_LARGE = ("string_too_long", "too_long")
_SHOWN = 5
"""Faults of a body that an error names."""


def of_error(error: LangptuneError) -> Problem:
    """The answer to an error that the caller can do something about."""
    status, word = next(
        ((status, word) for kind, status, word in STATUSES if isinstance(error, kind)), (422, "invalid")
    )
    return Problem(status, word, str(error), {"Retry-After": "1"} if status == 503 else None)


def add_handlers(app: FastAPI) -> None:
    """Make every error of an application an answer of the same form."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(LangptuneError, _on_langptune_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_fault)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _on_langptune_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LangptuneError)
    problem = of_error(error)
    if problem.status_code >= 500:
        log.error("%s", problem.detail)
    if isinstance(error, ConflictError):
        current = None if error.current is None else Version.of(error.current).model_dump()
        return problem.response(current=current)
    return problem.response()


async def _on_invalid(request: Request, error: Exception) -> Response:
    """A body, or a parameter, that is not what it must be. What was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return _not_json().response()
    lines = [f"{_place(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in faults]
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    is_too_large = any(_is_too_large(fault) for fault in faults)
    status, word = (413, "too_large") if is_too_large else (422, "invalid")
    return Problem(status, word, "; ".join(lines[:_SHOWN]) + more).response()


def _place(location: tuple[Any, ...]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path")]
    return ".".join(part if len(part) <= 60 else part[:60] + "…" for part in parts) or "the body"


def _is_too_large(fault: Mapping[str, Any]) -> bool:
    return fault["type"] in _TOO_LARGE or (fault["type"] == "less_than_equal" and fault["loc"][-1] == "k")


async def _on_http(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown paths, other methods, bodies that are no JSON."""
    assert isinstance(error, HTTPException)
    status, word, sentence = error.status_code, "invalid", str(error.detail)
    if status == 404:
        word, sentence = "unknown", "There is nothing at this address. /v2/openapi.json names what there is."
    elif status == 405:
        sentence = f"{request.method} is not what this address takes. /v2/openapi.json names what it does."
    elif status == 400:
        return _not_json().response()
    return Problem(status, word, sentence, error.headers).response()


async def _on_fault(request: Request, error: Exception) -> Response:
    """A fault of ours. The server logs it; the answer does not say what it was."""
    return Problem(500, "internal", "Something went wrong in the server, which goes on. Its log says what.").response()


def _not_json() -> Problem:
    return Problem(422, "invalid", "The body is no JSON that can be read.")


def _response(status: int, content: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """JSON in ASCII, which can hold whatever a caller has sent."""
    return Response(json.dumps(content), status, dict(headers), "application/json")
