"""The page's own files: read once, and served by their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
"""What is served. Other files in the folder are not."""


class PageFile:
    """A file in memory, whose tag is a hash of its content: a browser that has it is told so."""

    def __init__(self, path: Path):
        self._content, self._type = path.read_bytes(), _TYPES[path.suffix]
        self._tag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'

    async def __call__(self, request: Request) -> Response:
        """The file, or 304 where the browser has this content."""
        headers = {"ETag": self._tag, "Cache-Control": "no-cache"}
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if self._tag in known:
            return Response(status_code=304, headers=headers)
        return Response(self._content, headers=headers, media_type=self._type)


def page_files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Path on the server -> file. The index stands at `/`."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in _TYPES)
    found = {f"/{path.relative_to(folder).as_posix()}": PageFile(path) for path in files}
    return {("/" if path == f"/{INDEX}" else path): file for path, file in found.items()}


def add_page(app: FastAPI, files: dict[str, PageFile]) -> None:
    """Serve the files. No path of a request is looked for on the disk."""
    for path, file in files.items():
        app.router.add_route(path, file.__call__, methods=["GET"], include_in_schema=False)
