"""Tables of text."""

from __future__ import annotations

import re
from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up: the first to the left, the others to the right."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return "\n".join([line(lines[0]), rule, *map(line, lines[1:])])


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX `tabular` with the rules of booktabs: the first column to the left, the others to the right.

    Cells are plain text: what LaTeX would read as a command is escaped, and a number is set as mathematics, so that its
    sign is one.
    """
    head, *body = (" & ".join(map(latex_cell, line)) + r" \\" for line in (header, *rows))
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


_LATEX = {
    **{special: rf"\{special}" for special in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "≥": r"$\geq$",
    "↓": r"$\downarrow$",
}


def latex_cell(text: str) -> str:
    """Plain text as LaTeX: what it would read as a command is escaped, and a number is set as mathematics."""
    number = re.fullmatch(r"([+-]?[0-9]+(?:\.[0-9]+)?)(?:e([+-][0-9]+))?", text)
    if number is None:
        escaped = "".join(_LATEX.get(character, character) for character in text)
        return re.sub(r"(?<![\w.-])[+-](?=[0-9])", r"$\g<0>$", escaped)
    digits, exponent = number.groups()
    return f"${digits}$" if exponent is None else rf"${digits} \times 10^{{{int(exponent)}}}$"
