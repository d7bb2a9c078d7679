"""The hashes of a run's trained models, by which every command that opens one knows that it is as it was saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from langptune_rs.errors import RunError
from langptune_rs.files import file_hash, write_text
from langptune_rs.runs.folder import TRAINED

_CARD = "README.md"
"""A model card, which evaluations write anew."""


def note_saved(run: Path, models: Sequence[str]) -> None:
    """Write down in `TRAINED` that the models in these folders of `run` are whole, with the hash of each file."""
    hashed = {str(path.relative_to(run)): path for path in _files(run, models)}
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(file_hash, hashed.values())
    write_text(run / TRAINED, json.dumps({"sha256": dict(zip(hashed, hashes, strict=True))}, indent=2) + "\n")


def _files(run: Path, models: Sequence[str]) -> list[Path]:
    """What the hashes are of."""
    paths = (path for name in models for path in sorted((run / name).rglob("*")))
    return [path for path in paths if path.is_file() and path.name != _CARD]


def check_saved(run: Path, model: str) -> None:
    """Raise `RunError` for a file of a trained model that is missing or has changed since the run saved it.

    Runs of versions that noted no hashes are not checked.
    """
    wanted = {run / name: sha256 for name, sha256 in _noted(run).items() if Path(name).parts[0] == model}
    if missing := next((path for path in wanted if not path.is_file()), None):
        raise _changed(missing, "is missing", run)
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(file_hash, wanted)
        for (path, sha256), now in zip(wanted.items(), hashes, strict=True):
            if now != sha256:
                raise _changed(path, "has changed since the run saved it (its SHA-256 is another)", run)


def version_of_saved(run: Path, models: Sequence[str]) -> str:
    """A hash of the content of the models in these folders of `run`, 16 hexadecimal digits."""
    noted = _noted(run) or {str(path.relative_to(run)): file_hash(path) for path in _files(run, models)}
    return hashlib.sha256(json.dumps(sorted(noted.items())).encode()).hexdigest()[:16]


def _noted(run: Path) -> dict[str, Any]:
    """File -> hash. Empty where a run has not finished, or where its version noted nothing."""
    path = run / TRAINED
    text = path.read_bytes() if path.is_file() else b""
    if not text:
        return {}
    try:
        noted: dict[str, Any] = json.loads(text)["sha256"]
        is_whole = bool(noted) and all(Path(name).parts for name in noted)
    except (ValueError, LookupError, TypeError, RecursionError):
        is_whole = False
    if not is_whole or not isinstance(noted, dict):
        raise _changed(path, "is damaged", run)
    return noted


def _changed(path: Path, what: str, run: Path) -> RunError:
    return RunError(
        f"{path} {what}. Restore it from a copy; or delete {run / TRAINED} and continue the run with --resume, which "
        "saves both models again from the last checkpoint."
    )
