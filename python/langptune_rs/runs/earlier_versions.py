"""Runs that an earlier version began. What it did goes on where its `config.toml` has no key for it.

An earlier version gave items no prompt, trained in the precision of all else, and left it to a policy's chat template
whether the policy thinks. The date that a template tells was that of the day, and is not known any more.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from langptune_rs.config import RunConfig
from langptune_rs.distributed.collectives import rank
from langptune_rs.errors import ModelError
from langptune_rs.models.chat_template import TELLS_DATE, WITHOUT_THOUGHTS, template_text
from langptune_rs.models.weights import policy_tokenizer_folder
from langptune_rs.runs.origin import read_origin

_EARLIER: dict[str, Callable[[RunConfig], object]] = {
    "embedder.query_prompt": lambda _: "",
    "embedder.item_prompt": lambda _: "",
    "rlso.precision": lambda config: config.engine.precision,
    "policy.thinking": lambda _: "template",
}
"""Keys that earlier versions did not have, or had with another default, and what those versions did."""
LATER_KEYS = frozenset({"writes", "description"})
"""Sections, and keys before all sections, that earlier versions did not have. Their policies wrote profiles."""
DATE = "policy.date"


def as_begun(config: RunConfig, file: Path) -> RunConfig:
    """`config` of a run that has work, with what an earlier version did for each key that its `file` lacks.

    One warning on stderr if the policy's template tells a date, which the run did not note.
    """
    written = tomllib.loads(file.read_text(encoding="utf-8"))
    return config.with_values({key: _EARLIER[key](config) for key in _keys_of_before(config, written, file)})


def as_resumed(config: RunConfig, run: RunConfig) -> RunConfig:
    """`config` for going on with `run`, with what an earlier version did where `run` does and `config` sets nothing.

    A recipe of that time, or one of this package, does not name the keys by which the run now says it.
    """
    return config.with_values(
        {
            key: earlier(run)
            for key, earlier in _EARLIER.items()
            if run.value_of(key) == earlier(run) and not _is_set(config, key)
        }
    )


def lacks_date(file: Path) -> bool:
    """Whether a run's configuration was written by a version that noted no date."""
    return not _has(tomllib.loads(file.read_text(encoding="utf-8")), DATE)


def _keys_of_before(config: RunConfig, written: Mapping[str, Any], file: Path) -> list[str]:
    """The keys of `_EARLIER` that the version which wrote the file did not have."""
    keys = []
    if _has(written, "embedder.query_prompt") and not _has(written, "embedder.item_prompt"):
        keys += ["embedder.item_prompt"] * (read_origin(file.parent) is None)  # which a run of today has
    if _has(written, "engine.precision") and not _has(written, "rlso.precision"):
        keys.append("rlso.precision")
    has_arguments = _has(written, "policy.template_arguments") or _has(written, "policy.thinking")
    if not has_arguments or not _has(written, DATE):
        template = _template_of(config, file.parent)
        if not has_arguments and any(name in template for name in WITHOUT_THOUGHTS):
            keys.append("policy.thinking")
        if not _has(written, DATE) and TELLS_DATE in template:
            _warn_of_date(file, config.policy.date)
    return keys


def _template_of(config: RunConfig, run: Path) -> str:
    """The text of the policy's chat template; empty where the policy is not there."""
    if (run / "policy").is_dir():
        return template_text(run / "policy")
    try:
        return template_text(policy_tokenizer_folder(config.policy.model))
    except ModelError:  # opening it says so, if it is opened
        return ""


@cache
def _warn_of_date(file: Path, date: str) -> None:
    if rank() == 0:
        print(
            f"warning: {file.parent} was begun by a version that told the policy the date of the day and noted none. "
            f"Its prompts tell policy.date = {date} now; write the day of its training into {file} if you know it.",
            file=sys.stderr,
        )


def _has(written: Mapping[str, Any], key: str) -> bool:
    section, name = key.split(".")
    return name in written.get(section, {})


def _is_set(config: RunConfig, key: str) -> bool:
    section, name = key.split(".")
    return name in getattr(config, section).model_fields_set
