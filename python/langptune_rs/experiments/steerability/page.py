"""What was measured of steering, as tables and charts: for a terminal, for a Markdown file, and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from langptune_rs.evaluation.summary import SIGNIFICANT
from langptune_rs.evaluation.tables import markdown_table
from langptune_rs.experiments.report.charts import GRID, INK, inline, style
from langptune_rs.experiments.report.tables import p_text
from langptune_rs.experiments.steerability.figures import GROUPS, HEADLINES
from langptune_rs.experiments.steerability.measuring import ANOTHER_USER
from langptune_rs.experiments.steerability.protocol import AS_IS, SCRUBBED, STRENGTHS
from langptune_rs.runs.results import BASELINE

MORE_OR_LESS = {"increase": "more", "decrease": "less"}
_MARKS = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", (0, (1, 1))), ("P", (0, (6, 2))))
"""Marker and line of each variant, by which they can be told apart without colours."""


@dataclass(frozen=True)
class Cell:
    """A number with what stands below it, such as its interval."""

    text: str
    below: str = ""

    def __str__(self) -> str:
        return f"{self.text} [{self.below.replace(' to ', ', ')}]" if self.below else self.text


@dataclass(frozen=True)
class ShownTable:
    """A table with its caption. The first cell of a row is its name."""

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def markdown(results: Mapping[str, Any]) -> str:
    """The verdicts and all tables in Markdown."""
    parts = [*verdicts(results), facts(results)]
    for table in tables(results):
        rows = [[str(cell) for cell in row] for row in table.rows]
        parts += [f"### {table.title}", table.caption, markdown_table(table.header, rows)]
    return "\n\n".join(parts) + "\n"


def section(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of the report takes."""
    return {
        "verdicts": verdicts(results),
        "facts": facts(results),
        "tables": tables(results),
        "charts": [
            (
                "Change of a tag's AUC, by what is edited",
                "Mean over users with 95% bootstrap intervals, less the control's. Filled: item texts as they are. "
                "Open: without the tag's words. Right of 0: the tag moves as the person wanted.",
                Markup(_effects_chart(results)),
            ),
            (
                "Change of a tag's AUC by the strength of the edit",
                "Mean over users and tags, less the control's, item texts as they are. Above 0: as the person wanted.",
                Markup(_strengths_chart(results)),
            ),
        ],
    }


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """For each direction what each variant's edits do beside those of LangPTune-0, no more than the tests show."""
    sentences = []
    for direction, edit in HEADLINES.items():
        key = {"figure": "auc", "edit": edit, "direction": direction, "texts": AS_IS}
        before = find(results, variant=BASELINE, **key)
        parts = []
        for variant in names(results):
            numbers = find(results, variant=variant, **key)
            if variant == BASELINE or not numbers or numbers["mean"] is None:
                continue
            test = next(
                (
                    t
                    for t in results["comparisons"]
                    if _is(t, **key) and {t["first"], t["second"]} == {BASELINE, variant}
                ),
                None,
            )
            if test is None:
                continue
            word = "no difference shown" if test["p_holm"] >= SIGNIFICANT else _changed(before["mean"], numbers["mean"])
            parts.append(f"{variant} {numbers['mean']:+.3f} ({word}, p {_p(test['p_holm'])})")
        wish = "More" if direction == "increase" else "Less"
        sentences.append(
            f"{wish} of a tag ({edit}): its AUC moves as wanted by {before['mean']:+.3f} with {BASELINE}; "
            + "; ".join(parts)
            + "."
        )
    return sentences


def _changed(before: float, after: float) -> str:
    """How an effect differs from that of LangPTune-0; below 0, an edit does the opposite of what was wanted."""
    if before < 0 and after < 0:
        return "less far the wrong way" if after > before else "further the wrong way"
    return "steers further" if after > before else "steers less far"


def facts(results: Mapping[str, Any]) -> str:
    """What was measured, in a few sentences."""
    tags = ", ".join(f"{tag['name']} ({tag['num_items']})" for tag in results["tags"])
    judge = results["judge"]
    return (
        f"{results['num_users']} users of the {results['split']} split, one session each; {results['num_items']:,} "
        f"items; tags, with the items that have them: {tags}. All items but those of the history are ranked. Effects "
        "are those of an edited profile less those of a control that is as long and says nothing new; the sign is "
        "that of what the person wanted. Intervals are 95% bootstrap intervals over users, and p is of paired "
        f"permutation tests with Holm's correction over the pairs of a figure. Judge of the profiles: {judge['name']}"
        + (", which is the embedder before training and no independent judge." if judge["is_embedder"] else ".")
    )


def names(results: Mapping[str, Any]) -> list[str]:
    """The variants, in the order in which they are shown."""
    return [variant["name"] for variant in results["variants"]]


def find(results: Mapping[str, Any], **key: Any) -> dict[str, Any]:
    """The figure with these values, empty where there is none."""
    return next((dict(figure) for figure in results["figures"] if _is(figure, **key)), {})


def tables(results: Mapping[str, Any]) -> list[ShownTable]:
    """All tables."""
    variants = names(results)
    return [
        ShownTable(
            "Steering at a glance",
            "More: append and rewrite. Less: negate and rewrite. Each is the mean over three strengths. AUC: of the "
            "items with the tag over all others. Right signs: 50% is chance. Specificity: movement of unrelated tags "
            "over the tag's own, lower is better. Monotonicity: Kendall's tau of effect and strength, from -1 to 1. "
            "NDCG: change where the user's next item lacks the tag. Deleted, kept: by how much the logarithm of the "
            "first item's rank is better with the part that the explanation names than with another part.",
            ["", *variants],
            [[Cell(name), *cells] for name, cells in _glance(results)],
        ),
        ShownTable(
            "Every edit",
            "Change of the tag's AUC as wanted, less the control's, with item texts as they are and without the tag's "
            "words.",
            ["edit", "texts of items", *variants],
            [
                [
                    Cell(f"{edit}, {MORE_OR_LESS[direction]}"),
                    Cell(texts),
                    *(
                        _cell(find(results, variant=v, figure="auc", edit=edit, direction=direction, texts=texts))
                        for v in variants
                    ),
                ]
                for edit, direction in GROUPS
                for texts in (AS_IS, SCRUBBED)
            ],
        ),
        ShownTable(
            "What can be told apart",
            "Differences of the change of the tag's AUC between variants, the first less the second.",
            ["edit", "texts of items", "first", "second", "difference", "p", "p (Holm)"],
            [
                [
                    *(
                        Cell(f"{edit}, {MORE_OR_LESS[direction]}"),
                        Cell(texts),
                        Cell(test["first"]),
                        Cell(test["second"]),
                    ),
                    _interval(test["difference"], *test["interval"]),
                    *(Cell(p_text(test["p"])), Cell(p_text(test["p_holm"]))),
                ]
                for direction, edit in HEADLINES.items()
                for texts in (AS_IS, SCRUBBED)
                for test in results["comparisons"]
                if _is(test, figure="auc", edit=edit, direction=direction, texts=texts)
            ],
        ),
        ShownTable(
            "Controls",
            "How far the AUC of a tag moves without an edit that speaks of it. Paraphrase: in either direction, by a "
            "control. Unrelated edit: as wanted, by the same edit of an unrelated tag. Another user's profile: in "
            "either direction.",
            ["control", *variants],
            [[Cell(name), *cells] for name, cells in _controls(results)],
        ),
        ShownTable(
            "Readability",
            "Profiles of all sessions that were evaluated. Distinct: share of the words. Repeated: share of the "
            "sentences. Copied: share of the words, from titles of the history. Recognised: how often the judge "
            "finds the user's next item among five of equal popularity by the profile (chance is 20%), and by "
            "another user's.",
            ["", *results["policies"]],
            [
                [
                    Cell(name),
                    *(
                        _cell(find(results, section="readability", variant=policy, figure=figure), form)
                        for policy in results["policies"]
                    ),
                ]
                for name, figure, form in (
                    ("words", "words", ".1f"),
                    ("distinct", "distinct", ".1%"),
                    ("repeated", "repeated", ".1%"),
                    ("copied", "copied", ".1%"),
                    ("recognised", "judged", ".1%"),
                    ("recognised by another's", "judged_other", ".1%"),
                )
            ]
            + _recognised_tests(results),
        ),
    ]


def _glance(results: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    found = []
    at = f"at {results['k']}"
    for name, figure, texts, form in (
        ("AUC", "auc", AS_IS, "+.3f"),
        ("AUC, tag's words not in the items", "auc", SCRUBBED, "+.3f"),
        ("AUC in SteerEval's pool, no control", "pool_raw", AS_IS, "+.3f"),
        (f"exposure {at}", "exposure", AS_IS, "+.3f"),
        ("right signs", "right", AS_IS, ".1%"),
        ("specificity", "specificity", AS_IS, ".2f"),
        ("monotonicity", "monotonicity", AS_IS, "+.2f"),
        (f"NDCG {at}", "ndcg", AS_IS, "+.4f"),
    ):
        for direction, edit in HEADLINES.items():
            key = {"figure": figure, "edit": edit, "direction": direction, "texts": texts}
            cells = [_cell(find(results, variant=variant, **key), form) for variant in names(results)]
            found.append((f"{name}: {MORE_OR_LESS[direction]}", cells))
    for name, figure, form in (
        ("undone, exactly", "undone", ".1%"),
        ("deleted", "deleted_log_rank", "+.3f"),
        ("kept", "kept_log_rank", "+.3f"),
        (f"first item kept among {results['k']} by the named part", "kept_first", ".1%"),
        ("the same by another part", "kept_first_random", ".1%"),
        ("judge agrees with the named part", "judged", ".1%"),
        ("own profile over another's, NDCG", "own_ndcg", "+.4f"),
        ("own profile over another's, log-rank", "own_log_rank", "+.3f"),
        ("edits that are not read to the end", "unread", ".1%"),
    ):
        cells = [_cell(find(results, section="faithfulness", variant=v, figure=figure), form) for v in names(results)]
        found.append((name, cells))
    return found


def _controls(results: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    found = []
    for direction, edit in HEADLINES.items():
        for name, figure in (("paraphrase", "control"), ("unrelated edit", "unrelated_edit")):
            key = {"figure": figure, "edit": edit, "direction": direction, "texts": AS_IS}
            cells = [_cell(find(results, variant=variant, **key)) for variant in names(results)]
            found.append((f"{name} ({edit}, {MORE_OR_LESS[direction]})", cells))
    key = {"figure": "another_user", "edit": ANOTHER_USER, "texts": AS_IS}
    found.append(("another user's profile", [_cell(find(results, variant=v, **key)) for v in names(results)]))
    return found


def _recognised_tests(results: Mapping[str, Any]) -> list[list[Cell]]:
    """A row for each pair of policies, as far as there are columns for it."""
    return [
        [
            Cell(f"recognised, {test['first']} less {test['second']}"),
            _interval(test["difference"], test["interval"][0], test["interval"][1], ".1%"),
            Cell(f"p {_p(test['p_holm'])}"),
            *(Cell("") for _ in results["policies"][2:]),
        ]
        for test in results["comparisons"]
        if _is(test, section="readability", figure="judged")
    ]


def _is(row: Mapping[str, Any], **key: Any) -> bool:
    return all(row.get(name) == value for name, value in key.items())


def _cell(numbers: Mapping[str, Any], form: str = "+.3f") -> Cell:
    if not numbers or numbers["mean"] is None:
        return Cell("–")
    return _interval(numbers["mean"], numbers["low"], numbers["high"], form)


def _interval(mean: float, low: float, high: float, form: str = "+.3f") -> Cell:
    return Cell(format(mean, form), f"{format(low, form)} to {format(high, form)}")


def _p(p: float) -> str:
    return p_text(p) if p < 0.001 else f"= {p_text(p)}"


def _effects_chart(results: Mapping[str, Any]) -> str:
    """The headline effects: a panel for each direction, a row for each variant."""
    variants = names(results)
    spoken = []
    with style({"svg.hashsalt": "steering-effects", "axes.grid.axis": "x", "axes.spines.left": False}):
        figure = Figure(figsize=(9.4, 0.9 + 0.5 * len(variants)), layout="constrained")
        panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
        for axes, (direction, edit) in zip(panels, HEADLINES.items(), strict=True):
            axes.axvline(0, color=INK, linewidth=0.8)
            for place, variant in enumerate(variants):
                for texts, shift, fill in ((AS_IS, -0.14, INK), (SCRUBBED, 0.14, "none")):
                    numbers = find(results, variant=variant, figure="auc", edit=edit, direction=direction, texts=texts)
                    if not numbers or numbers["mean"] is None:
                        continue
                    line = [place + shift] * 2
                    axes.plot([numbers["low"], numbers["high"]], line, color=INK, linewidth=1.2)
                    marker, _ = _MARKS[place % len(_MARKS)]
                    axes.plot([numbers["mean"]], line[:1], color=INK, marker=marker, markersize=7, markerfacecolor=fill)
                    spoken.append(f"{variant}, {MORE_OR_LESS[direction]}, texts {texts}: {numbers['mean']:+.3f}")
            axes.set_title(f"{MORE_OR_LESS[direction]} of a tag ({edit})", fontsize=10, color=INK, loc="left")
            axes.xaxis.set_major_locator(MaxNLocator(5))
        panels[0].set_yticks(range(len(variants)), variants)
        panels[0].set_ylim(len(variants) - 0.5, -0.5)
        return inline(figure, "steering-effects", "Change of a tag's AUC. " + "; ".join(spoken))


def _strengths_chart(results: Mapping[str, Any]) -> str:
    """The effect by strength: a panel for each edit, a line for each variant."""
    panels_of = [("append", "increase"), ("rewrite", "increase"), ("request", "increase")]
    panels_of += [("negate", "decrease"), ("rewrite", "decrease"), ("request", "decrease")]
    spoken = []
    with style({"svg.hashsalt": "steering-strengths"}):
        figure = Figure(figsize=(9.4, 5.2), layout="constrained")
        grid = figure.subplots(2, 3, sharex=True, sharey="row")
        for axes, (edit, direction) in zip(grid.ravel(), panels_of, strict=True):
            axes.axhline(0, color=GRID, linewidth=1.2)
            for place, variant in enumerate(names(results)):
                rows = [
                    row
                    for row in results["strengths"]
                    if _is(row, variant=variant, edit=edit, direction=direction, texts=AS_IS)
                    and row["mean"] is not None
                ]
                rows.sort(key=lambda row: row["strength"])
                marker, line = _MARKS[place % len(_MARKS)]
                steps, means = [0, *(row["strength"] for row in rows)], [0.0, *(row["mean"] for row in rows)]
                axes.plot(steps, means, color=INK, marker=marker, linestyle=line, linewidth=1.3, label=variant)
                if rows:
                    spoken.append(f"{edit}, {MORE_OR_LESS[direction]}, {variant}: {rows[-1]['mean']:+.3f}")
            axes.set_title(f"{edit}, {MORE_OR_LESS[direction]}", fontsize=10, color=INK, loc="left")
            axes.set_xticks((0, *STRENGTHS))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        for axes in grid[-1]:
            axes.set_xlabel("strength")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        return inline(figure, "steering-strengths", "At the greatest strength. " + "; ".join(spoken))
