"""How items, histories and instructions are written for the models (section 4.1 and appendix B).

The words themselves are in the Jinja files beside this one. `base.jinja` says what such a file may define.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from langptune_rs.config.data import TEMPLATE_SUFFIX, TEMPLATES
from langptune_rs.data.wording.excerpts import shorten
from langptune_rs.errors import DataError, nearest

_FALLBACK_TITLE_LENGTH = 60
_BASE = "base.jinja"

HistoryText = Literal["full", "brief"]


@dataclass(frozen=True)
class Item:
    """What is known of an item. Every field may be missing, but not the title, description and categories together."""

    title: str | None = None
    description: str | None = None
    categories: Sequence[str] = ()
    price: str | None = None
    average_rating: float | None = None


class PromptOptions(Protocol):
    """What shapes a prompt: see `PromptStyle`."""

    @property
    def instruction(self) -> str | None: ...
    @property
    def closing(self) -> str: ...
    @property
    def history_text(self) -> HistoryText: ...


@dataclass(frozen=True)
class PromptStyle:
    """The shape of a prompt. The default is that of the paper."""

    instruction: str | None = None
    """The text before the history. None takes that of the template."""
    closing: str = ""
    """The text after the history."""
    history_text: HistoryText = "full"
    """`full` shows the whole text of each item, and `brief` one line with its title and categories."""


PAPER_STYLE = PromptStyle()


def item_title(item: Item) -> str:
    """The title, or the first words of what else is known of an item that has none."""
    return item.title or shorten(item.description or ", ".join(item.categories), _FALLBACK_TITLE_LENGTH)


@dataclass(frozen=True)
class Template:
    """The wording of prompts for one domain. Methods raise `DataError`, with file and line, where a macro fails."""

    name: str
    """The name of a built-in template, or the path of a file."""
    source: str | None
    """The text of the file. None for a built-in template."""
    instruction: str
    """The text that says what the policy is to do."""
    _macros: Mapping[str, Callable[..., str]] = field(repr=False, compare=False)

    item_title = staticmethod(item_title)

    def item_text(self, item: Item) -> str:
        """The text of an item that the embedder reads and a full history shows."""
        return self._macros["item_text"](item)

    def item_line(self, item: Item) -> str:
        """An item in one line, for short prompts."""
        return self._macros["item_line"](item)

    def history_entry(
        self, text: str, rating: float | None, review: str | None, history_text: HistoryText = "full"
    ) -> str:
        """The text of an item, or its line if `brief`, with the user's rating and review if there are any."""
        return self._macros["history_entry"](text, rating, review, history_text == "brief")

    def prompt(self, history: Sequence[str], style: PromptOptions = PAPER_STYLE) -> str:
        """The message to the policy: the instruction, then the history of `history_entry` texts, oldest first."""
        parts = (style.instruction or self.instruction, *history, style.closing)
        return "\n\n".join(part for part in parts if part)


def make_template(name: str, *, has_ratings: bool, has_reviews: bool, source: str | None = None) -> Template:
    """The built-in template `name`, or the template in the file `name`, for data with or without ratings and reviews.

    The instruction mentions only what the data has. With ratings, reviews and `movies` it is that of appendix B, letter
    for letter. `source` is the text of the file, which is then not read. Raises `DataError` for an unknown name, and
    with file and line for a file that is broken or whose macros fail on an item of any kind.
    """
    if source is None and name not in TEMPLATES:
        source = read_template(name)
    macros = _load(f"{name}{TEMPLATE_SUFFIX}" if source is None else name, source)
    if source is not None:
        _try_out(macros, name)
    return Template(name, source, macros["instruction"](has_ratings, has_reviews), macros)


_DOMAINS = {
    "books": ("books", "kindle_store"),
    "games": ("video_games",),
    "movies": ("movies_and_tv", "amazon_instant_video"),
    "music": ("cds_and_vinyl", "digital_music"),
}
"""Template -> the Amazon categories that it is for, by their names of all years."""


def domain_of(name: str) -> str:
    """The template for the Amazon category that the name of a file says. `products` for any other category.

    >>> domain_of("meta_Kindle_Store.jsonl.gz")
    'books'
    """
    words = "_".join(re.findall(r"[a-z]+", PurePath(name).name.lower().replace("&", "and")))
    for template, categories in _DOMAINS.items():
        if any(f"_{category}_" in f"_{words}_" for category in categories):
            return template
    return "products"


_PARAMETERS = {
    "instruction": ("has_ratings", "has_reviews"),
    "item_text": ("item",),
    "item_line": ("item",),
    "history_entry": ("text", "rating", "review", "brief"),
}
_WORDS = ("things", "contact")
_KNOWN = (*_PARAMETERS, *_WORDS)


@dataclass(frozen=True)
class _Macro:
    """A macro as a function. Its errors name the file and the line."""

    macro: Callable[..., str]
    name: str
    file: str

    def __call__(self, *arguments: object) -> str:
        try:
            return self.macro(*arguments).removesuffix("\n")
        except Exception as error:
            raise _failed(error, self.file, f"{self.name}()") from error


def read_template(name: str) -> str:
    """The text of the user's own template in the file `name`. Raises `DataError` where there is none."""
    path = Path(name)
    if path.suffix != TEMPLATE_SUFFIX:
        raise DataError(
            f"There is no template {name!r}. Choose one of {', '.join(TEMPLATES)}, or give a {TEMPLATE_SUFFIX} file."
        )
    if not path.is_file():
        raise DataError(
            f"There is no template file {path}. Give the path of a {TEMPLATE_SUFFIX} file, or one of the names "
            f"{', '.join(TEMPLATES)}."
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start + 1}. Save it as UTF-8.") from error


def _load(file: str, source: str | None) -> dict[str, _Macro]:
    """The macros of `file`. Those that it does not define are taken from the template it extends, or from the base."""
    words: dict[str, Any] = {}
    macros: dict[str, _Macro] = {}
    for part, text in _parts(file, source):
        found = _evaluate(part, text, words)
        words = {name: found[name] for name in _WORDS if name in found} | words
        macros = {name: _Macro(found[name], name, part) for name in _PARAMETERS if name in found} | macros
    return macros


def _parts(file: str, source: str | None) -> Iterator[tuple[str, nodes.Template]]:
    """Yield the syntax trees of a file, of the template it extends, and of the base, each with its name."""
    tree = _parse(file, source)
    if source is not None:
        _check_names(file, tree)
    parents = [node for node in tree.body if isinstance(node, nodes.Extends)]
    tree.body = [node for node in tree.body if not isinstance(node, nodes.Extends)]
    yield file, tree
    for node in parents[:1]:
        parent = getattr(node.template, "value", None)
        if parent not in _built_in():
            raise DataError(
                f"{file}, line {node.lineno}: only a template that comes with the package can be extended: "
                f"{', '.join(_built_in())}."
            )
        if parent != _BASE:
            yield parent, _parse(parent, None)
    yield _BASE, _parse(_BASE, None)


def _parse(file: str, source: str | None) -> nodes.Template:
    """The syntax tree of `source`, or of a built-in file."""
    environment = _environment()
    if source is None:
        source = _LOADER.get_source(environment, file)[0]
    try:
        return environment.parse(source, file, file)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"{file}, line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise DataError(f"{file}: nested too deeply to be read.") from error


def _check_names(file: str, tree: nodes.Template) -> None:
    """Raise `DataError` for a file without definitions, an unknown name, and a macro with wrong parameters."""
    if not any(isinstance(node, nodes.Macro | nodes.Assign | nodes.FromImport | nodes.Extends) for node in tree.body):
        raise DataError(f"{file} defines nothing. A template defines some of {', '.join(_KNOWN)}.")
    for node in tree.body:
        if not isinstance(node, nodes.Macro | nodes.Assign):
            continue
        name = node.name if isinstance(node, nodes.Macro) else getattr(node.target, "name", "_")
        if name.startswith("_"):
            continue
        if name not in (_PARAMETERS if isinstance(node, nodes.Macro) else _WORDS):
            raise DataError(
                f"{file}, line {node.lineno}: {name!r} is nothing that a template has.{nearest(name, list(_KNOWN))} "
                f"It has the words {', '.join(_WORDS)} and the macros {', '.join(_PARAMETERS)}; "
                "names of the file's own begin with an underscore."
            )
        if isinstance(node, nodes.Macro) and tuple(argument.name for argument in node.args) != _PARAMETERS[name]:
            raise DataError(
                f"{file}, line {node.lineno}: the macro {name} has other parameters than it is given. "
                f"Write {{% macro {name}({', '.join(_PARAMETERS[name])}) %}}."
            )


def _evaluate(file: str, tree: nodes.Template, words: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a file defines or imports at its top. `words` are set by the files that extend it."""
    environment = _environment()
    try:
        code = environment.compile(tree, file, file)
        template = jinja2.Template.from_code(environment, code, environment.make_globals(None))
        context = template.new_context(dict(words))
        list(template.root_render_func(context))
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"{file}, line {error.lineno}: {error.message}") from error
    except Exception as error:
        raise _failed(error, file, "what is outside of its macros") from error
    return context.vars


def _failed(error: Exception, file: str, where: str) -> DataError:
    """Return the error for a template that fails. Only the traceback of `error` says in which line."""
    line, traceback = "", error.__traceback__
    while traceback:
        template = traceback.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            file, line = template.filename, f", line {template.get_corresponding_lineno(traceback.tb_lineno)}"
        traceback = traceback.tb_next
    if isinstance(error, jinja2.TemplateNotFound):
        problem = f"there is no {error.name!r} among {', '.join(_built_in())}"
    else:
        problem = f"{type(error).__name__}: {error}"
    return DataError(f"{file}{line}: {where} fails. {problem.rstrip('.')}.")


_SAMPLES = (
    Item("Title", "Description", ["One", "Two"], "4.99", 4.5),
    Item(title="Title", categories=[]),
    Item(description="Description", categories=[]),
    Item(categories=["One"]),
)


def _try_out(macros: Mapping[str, _Macro], file: str) -> None:
    """Call the macros with any fields missing, so that a fault is found before the first item that has it."""
    calls: list[tuple[str, tuple[object, ...]]]
    calls = [("instruction", (ratings, reviews)) for ratings in (True, False) for reviews in (True, False)]
    calls += [(macro, (item,)) for macro in ("item_text", "item_line") for item in _SAMPLES]
    calls += [
        ("history_entry", ("Title: Title", rating, review, brief))
        for rating in (4.5, None)
        for review in ("Review", None)
        for brief in (True, False)
    ]
    written = [(name, macros[name](*arguments)) for name, arguments in calls]
    for name in _PARAMETERS:
        if not any(text.strip() for macro, text in written if macro == name):
            raise DataError(f"{file}: the macro {name} writes nothing. Let it write a text, or leave it out.")


_FIELDS = frozenset(field.name for field in fields(Item))


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox without its checks of an item's fields, which would take half the time of writing an item's text."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return (
            getattr(obj, attribute) if type(obj) is Item and attribute in _FIELDS else super().getattr(obj, attribute)
        )


_LOADER = jinja2.PackageLoader("langptune_rs.data.wording", ".")


@cache
def _environment() -> _Environment:
    """Jinja without access to the rest of Python, and with an error for what is not defined."""
    environment = _Environment(
        loader=_LOADER,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_refuse_none,
    )
    environment.globals["item_title"] = item_title
    return environment


def _refuse_none(value: object) -> object:
    """Return `value`, which is to be written. Raises `ValueError` for None, which nobody means to write as a word."""
    if value is None:
        raise ValueError(
            "what is missing here for some items would be written as None; write it within {% if ... %}, "
            "and item_title(item) for a title"
        )
    return value


def _built_in() -> list[str]:
    return [_BASE, *(f"{name}{TEMPLATE_SUFFIX}" for name in TEMPLATES)]
