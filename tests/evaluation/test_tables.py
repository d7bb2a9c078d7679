"""Tables as text: what a cell holds must not change the table."""

import pytest

from langptune_rs.evaluation.tables import latex_table, markdown_table


def latex_cell(text):
    return latex_table(["", "cell"], [("", text)]).splitlines()[4].removeprefix(" & ").removesuffix(r" \\")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("95% of $5 & #1_a {x}", r"95\% of \$5 \& \#1\_a \{x\}"),
        (r"C:\new~^", r"C:\textbackslash{}new\textasciitilde{}\textasciicircum{}"),
        ("p < 0.001 | q > 1", r"p \textless{} 0.001 \textbar{} q \textgreater{} 1"),
        ("0.25", "$0.25$"),
        ("-0.25", "$-0.25$"),
        ("+3", "$+3$"),
        ("1.2e-05", r"$1.2 \times 10^{-5}$"),
        ("1e+10", r"$1 \times 10^{10}$"),
        ("+0.01 [-0.02, 0.04]", "$+$0.01 [$-$0.02, 0.04]"),
        ("0.1–0.2 ↓ p ≥ 1", r"0.1--0.2 $\downarrow$ p $\geq$ 1"),
        ("LangPTune-0", "LangPTune-0"),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
        ("", ""),
    ],
)
def test_latex_cells_are_plain_text_or_numbers(text, cell):
    assert latex_cell(text) == cell


def test_a_bar_does_not_end_a_markdown_cell():
    assert markdown_table(["method", "x"], [("a|b", "1")]).splitlines() == [
        "| method | x |",
        "|--------|--:|",
        "| a\\|b   | 1 |",
    ]
