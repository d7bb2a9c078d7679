"""How items, histories and instructions are written for the models (section 4.1 and appendix B).

The words themselves are the Jinja files in `wording/`; `wording/base.jinja` says what such a file may define.
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
    """What is known of an item. Every field may be missing, but not all texts at once."""

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
    """Shape of a prompt; the default is the paper's."""

    instruction: str | None = None
    """Told before the history; none takes the template's own words."""
    closing: str = ""
    """Asked again after the history."""
    history_text: HistoryText = "full"
    """Each history item's whole text, or one line with its title and categories."""


PAPER_STYLE = PromptStyle()


def item_title(item: Item) -> str:
    """The title, or the first words of what else is known of an item that has none."""
    return item.title or shorten(item.description or ", ".join(item.categories), _FALLBACK_TITLE_LENGTH)


@dataclass(frozen=True)
class Template:
    """The wording for one domain. Its methods raise `DataError`, with file and line, where a macro fails."""

    name: str
    """A built-in name, or the path of the file."""
    source: str | None
    """The text of the file; none for a built-in template."""
    instruction: str
    """What the policy is asked to do."""
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
        """An item's text, or in brief its line, with the user's rating and review, where there are any."""
        return self._macros["history_entry"](text, rating, review, history_text == "brief")

    def prompt(self, history: Sequence[str], style: PromptOptions = PAPER_STYLE) -> str:
        """The message to the policy: the instruction, then the history of `history_entry` texts, oldest first."""
        parts = (style.instruction or self.instruction, *history, style.closing)
        return "\n\n".join(part for part in parts if part)


def make_template(name: str, *, has_ratings: bool, has_reviews: bool, source: str | None = None) -> Template:
    """The built-in template `name`, or that of the file `name`, for data with or without ratings and reviews.

    With both and `movies` the instruction is that of appendix B, letter for letter; data that lacks one of them is
    not said to have it. `source` is the text of the file where that is at hand, and the file is then not read.
    Raises `DataError` for an unknown name, and with file and line for a file that is broken or whose macros fail on
    an item of any kind.
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
"""Per template: the Amazon categories that it words, of all years."""


def domain_of(name: str) -> str:
    """The template for an Amazon category, which is found in the name of its file; `products` for any other.

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
    """A macro as a function of its arguments, whose errors name the file and the line."""

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
    """The macros of `file`, and for those that it does not define the ones of what it extends, and of the base."""
    words: dict[str, Any] = {}
    macros: dict[str, _Macro] = {}
    for part, text in _parts(file, source):
        found = _evaluate(part, text, words)
        words = {name: found[name] for name in _WORDS if name in found} | words
        macros = {name: _Macro(found[name], name, part) for name in _PARAMETERS if name in found} | macros
    return macros


def _parts(file: str, source: str | None) -> Iterator[tuple[str, nodes.Template]]:
    """The syntax trees of a template: the file's own, that of the one it extends, and the base's."""
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
    """Refuse a file that defines nothing, a name that is none of a template's, and a macro with other parameters."""
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
    """What a file defines or imports at its top, given the words of those that extend it."""
    environment = _environment()
    try:
        code = environment.compile(tree, file, file)
        template = jinja2.Template.from_code(environment, code, environment.make_globals(None))
        context = template.new_context(dict(words))
        list(template.root_render_func(context))
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"{file}, line {error.lineno}: {error.message}") from error
    except Exception as error:
        raise _failed(error, file, "what stands outside of its macros") from error
    return context.vars


def _failed(error: Exception, file: str, where: str) -> DataError:
    """`error` with the line of the template that it came from, which is known from the traceback alone."""
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
    """Call the macros with whatever may be missing, so that no item late in a catalog is the first to fail."""
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
    """The sandbox, without its doubts about an item's fields: they would take half the time of an item's text."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return (
            getattr(obj, attribute) if type(obj) is Item and attribute in _FIELDS else super().getattr(obj, attribute)
        )


_LOADER = jinja2.PackageLoader("langptune_rs.data", "wording")


@cache
def _environment() -> _Environment:
    """Jinja as templates see it: no way to the rest of Python, and an error for what is not defined."""
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
    """`value`, which is to be written. Nobody means to write the word None for what is missing."""
    if value is None:
        raise ValueError(
            "what is missing here for some items would be written as None; write it within {% if ... %}, "
            "and item_title(item) for a title"
        )
    return value


def _built_in() -> list[str]:
    return [_BASE, *(f"{name}{TEMPLATE_SUFFIX}" for name in TEMPLATES)]
