"""What Python writes for a value, read without running anything."""

from __future__ import annotations

import ast
import re
from typing import Any

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_KNOWN_ESCAPES = frozenset("\\'\"abfnrtvxuUN01234567\n")
TOO_DEEP = "nested too deeply"
"""What is wrong with a value in which lists hold lists more often than Python follows."""
_NAMES = {"null": None, "nan": None, "NaN": None, "true": True, "false": False}
"""Words that stand for a value in JSON, or where a number is missing."""


def parse_python(text: str) -> Any:
    """The value of a Python literal, in which JSON's words and escapes may stand too. A missing number is None.

    Raises `ValueError`, and nothing else, for a text that is no literal, is nested too deeply, has a number that cannot
    be written out, or has a list or an object where Python wants what can be a key.
    """
    try:
        tree = _Words().visit(ast.parse(_ESCAPE.sub(_known_escape, text.strip()), mode="eval"))
        value = ast.literal_eval(tree)
        return _whole(value) if _has_surrogates(text) else value
    except SyntaxError as error:
        raise ValueError(error.msg) from None
    except (RecursionError, MemoryError):
        raise ValueError(TOO_DEEP) from None
    except TypeError as error:
        raise ValueError(f"no value of Python, {error}") from None
    except ValueError:
        raise ValueError("neither JSON nor a Python literal") from None  # Python's own message is of its syntax tree


class _Words(ast.NodeTransformer):
    """Puts the values of `_NAMES` in the place of their names."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A constant for a known name."""
        return ast.Constant(_NAMES[node.id]) if node.id in _NAMES else node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """The constant. Raises `ValueError` for a whole number that Python reads as 0xff..., and refuses to write."""
        if isinstance(node.value, int):
            str(node.value)
        return node


def _known_escape(found: re.Match[str]) -> str:
    """An escape that Python knows: JSON's `\\/` is a slash, and another unknown one is the text that it shows."""
    if found[1] == "/":
        return "/"
    return found[0] if found[1] in _KNOWN_ESCAPES else "\\" + found[0]


def _has_surrogates(text: str) -> bool:
    return "\\ud" in text or "\\uD" in text


def _whole(value: Any) -> Any:
    """`value` with one character for each pair of surrogates in its texts."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if isinstance(value, dict):
        return {_whole(key): _whole(part) for key, part in value.items()}
    return type(value)(map(_whole, value)) if isinstance(value, list | tuple | set) else value
