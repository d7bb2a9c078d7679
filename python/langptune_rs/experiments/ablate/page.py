"""An ablation as an HTML page that loads nothing from elsewhere, as Markdown, and as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE, LOG_LIKELIHOOD, LOG_RANK, SIGNIFICANT, mean_text
from langptune_rs.evaluation.tables import latex_table, markdown_table
from langptune_rs.experiments.ablate.beside import FOLDER
from langptune_rs.experiments.ablate.examples import RULE
from langptune_rs.experiments.ablate.figures import ALL, HEADLINE, headline, inline_figure, shown_metrics
from langptune_rs.experiments.compare.fitting import VALIDATION
from langptune_rs.experiments.compare.page import GUARD_TITLE, cells_of_guards, doubts, guard_header, guard_notes
from langptune_rs.experiments.pages import render
from langptune_rs.experiments.report.tables import ARROW, comparison_header, comparison_rows, label, p_text
from langptune_rs.files import write_text
from langptune_rs.runs.results import BASELINE

PAGES = ("ablation.html", "ablation.md", "ablation.tex")


def write_pages(ablation: Mapping[str, Any], output: Path) -> None:
    """Write `PAGES` into `output`."""
    for name, text in zip(PAGES, (html(ablation), markdown(ablation), latex(ablation)), strict=True):
        write_text(output / name, text)


def means_table(ablation: Mapping[str, Any], decoding: str) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and a row for each value: means with intervals, p, spread and looks of profiles."""
    metrics = shown_metrics(ablation)
    before = f"{BASELINE}, {label(headline(ablation))}"
    names = ["sd of seeds", before, "minutes", "tokens", "overlong", "copied", "repetition"]
    head = [ablation["title"].lower(), *map(label, metrics), "p (Holm)", "seeds", *names]
    return head, [_means_row(ablation, row, decoding, metrics) for row in ablation["rows"]]


def differences_table(ablation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Each value less the recipe's own one, with p corrected by Holm."""
    rows = [
        {"method": row["label"], "other": ablation["own"], "decoding": decoding, "metric": metric, **numbers}
        | {"p": numbers["p_holm"]}
        for row in ablation["rows"]
        for decoding, metrics in (row["difference"] or {}).items()
        for metric, numbers in metrics.items()
    ]
    return _compared(ablation, rows, "p (Holm)")


def gains_table(ablation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What training has gained with each value over the initial policy with the same embedder; p as it is."""
    rows = [
        {"method": row["label"], "other": row["gain"]["over"], "decoding": decoding, "metric": metric, **numbers}
        for row in ablation["rows"]
        for decoding, metrics in row["gain"].items()
        if decoding != "over"
        for metric, numbers in metrics.items()
    ]
    return _compared(ablation, rows, "p")


def guards_table(ablation: Mapping[str, Any], decoding: str) -> tuple[list[str], list[list[str]]]:
    """What the profiles of one decoding rest on with each value; no rows where that was not measured."""
    comparison = _as_comparison(ablation, decoding)
    return [ablation["title"].lower(), *guard_header(comparison)[1:]], cells_of_guards(comparison)


def _as_comparison(ablation: Mapping[str, Any], decoding: str) -> dict[str, Any]:
    """The values as the methods of a comparison, as far as `cells_of_guards` and `doubts` look at them."""
    rows = [
        {
            "name": row["label"],
            "metrics": row["metrics"][decoding],
            "guards": row["guards"] and row["guards"].get(decoding),
        }
        for row in ablation["rows"]
    ]
    return {"k": ablation["k"], "rows": rows}


def _guard_parts(ablation: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]], list[str]]]:
    """For each decoding the caption, head and rows of `guards_table`, and the doubts; none where none was measured."""
    parts = []
    for decoding in _decodings(ablation):
        head, rows = guards_table(ablation, decoding)
        if rows:
            parts.append((f"{decoding.capitalize()} profiles", head, rows, doubts(_as_comparison(ablation, decoding))))
    return parts


BESIDE_TITLE = "Other methods on the same shares"


def beside_table(ablation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A row for each method, the trained one first: NDCG at the cutoff with each value, and p against the trained one.

    No rows where no other method was asked for.
    """
    metric = headline(ablation)
    head = ["method", *(text for row in ablation["rows"] for text in (row["label"], f"p, {row['label']}"))]
    names = dict.fromkeys(name for row in ablation["rows"] for name in row["beside"])
    own = [(mean_text(row["metrics"]["greedy"][metric]), "–") for row in ablation["rows"]]
    found = [[(f"{ablation['method']}, greedy"), *(text for pair in own for text in pair)]] if names else []
    for name in names:
        numbers = [row["beside"].get(name, {"metrics": {}, "p": {}}) for row in ablation["rows"]]
        pairs = [(mean_text(of["metrics"].get(metric)), p_text(of["p"].get(metric))) for of in numbers]
        found.append([name, *(text for pair in pairs for text in pair)])
    return head, found


def beside_notes(ablation: Mapping[str, Any]) -> list[str]:
    """What the columns of `beside_table` are, and what is missing, in sentences."""
    of_all = {name: of for row in ablation["rows"] for name, of in row["beside"].items()}
    with_histories = [name for name, of in of_all.items() if of["learns_from_histories"]]
    return [
        f"{label(headline(ablation))} with its 95% interval. p: against {ablation['method']} with greedy profiles, "
        "corrected by Holm over all pairs of methods of different groups that learned from that share. Each share has "
        f"its own page in the folder {FOLDER}.",
        *(
            [f"{', '.join(with_histories)} learned from all histories of validation and test too, whatever the share."]
            if with_histories
            else []
        ),
        *(
            ["Settings, and when to stop, were chosen on these very sessions: methods look better here than they are."]
            if ablation["split"] == VALIDATION
            else []
        ),
        *ablation["missing"],
    ]


def markdown(ablation: Mapping[str, Any]) -> str:
    """The tables, what their numbers are, and the examples, in Markdown."""
    parts = [f"# {title(ablation)}", verdict(ablation)]
    for decoding in _decodings(ablation):
        parts += [f"{decoding.capitalize()} profiles:", markdown_table(*means_table(ablation, decoding))]
    parts += [
        *notes(ablation),
        *failures(ablation),
        "Each value less the recipe's own:",
        markdown_table(*differences_table(ablation)),
        f"{ablation['method']} with each value less {ablation['rows'][0]['gain']['over']}:",
        markdown_table(*gains_table(ablation)),
    ]
    if (of_methods := beside_table(ablation))[1]:
        parts += [f"## {BESIDE_TITLE}", markdown_table(*of_methods), " ".join(beside_notes(ablation))]
    else:
        parts += ablation["missing"]
    if of_guards := _guard_parts(ablation):
        parts += [f"## {GUARD_TITLE}", " ".join(guard_notes(ablation))]
        for caption, head, rows, doubted in of_guards:
            parts += [f"{caption}:", markdown_table(head, rows), *doubted]
    parts.append(f"## Profiles side by side\n\n{RULE}")
    for example in ablation["examples"]:
        history = "; ".join(example["history"])
        parts.append(f"User {example['user']} chose next: {example['target']}. History, oldest first: {history}.")
        cells = [[p["label"], " ".join(p["text"].split()), str(p["rank"]), p_notes(p)] for p in example["profiles"]]
        parts.append(markdown_table([ablation["title"].lower(), "profile", "rank", ""], cells))
    return "\n\n".join(parts) + "\n"


def latex(ablation: Mapping[str, Any]) -> str:
    """The means of the greedy profiles by the metrics cut at k, as table 3 of the paper, with p by Holm; booktabs."""
    metrics = [metric for metric in shown_metrics(ablation) if "@" in metric]
    rows = [
        [
            row["label"],
            *(f"{row['metrics']['greedy'][metric]['mean']:.4f}" for metric in metrics),
            _p_of(ablation, row, "greedy"),
        ]
        for row in ablation["rows"]
    ]
    return latex_table([ablation["title"], *map(label, metrics), "p (Holm)"], rows) + "\n"


def html(ablation: Mapping[str, Any]) -> str:
    """The page. Every text that comes from data, models or settings is escaped."""
    tables = [
        (f"{decoding.capitalize()} profiles. {' '.join(notes(ablation))}", *means_table(ablation, decoding))
        for decoding in _decodings(ablation)
    ]
    less = "Differences of means with their 95% intervals; sd is the standard deviation between seeds."
    to_own = f"Each value less the recipe's own. {less} p is corrected by Holm over the values."
    to_initial = f"{ablation['method']} less {ablation['rows'][0]['gain']['over']}. {less} p is not corrected."
    compared = [(to_own, *differences_table(ablation)), (to_initial, *gains_table(ablation))]
    metric = headline(ablation)
    return render(
        "ablate/page.html.j2",
        title=title(ablation),
        verdict=verdict(ablation),
        headline=label(metric),
        chart=Markup(inline_figure(ablation, HEADLINE, [metric])),
        all_charts=Markup(inline_figure(ablation, ALL, shown_metrics(ablation))),
        tables=[_split(*table) for table in tables],
        compared=[_split(*table) for table in compared],
        beside_title=BESIDE_TITLE,
        beside=_split(" ".join(beside_notes(ablation)), *beside_table(ablation)),
        guard_title=GUARD_TITLE,
        guard_notes=guard_notes(ablation),
        guards=[
            (_split(f"{caption}.", head, rows), doubted) for caption, head, rows, doubted in _guard_parts(ablation)
        ],
        examples=ablation["examples"],
        rule=RULE,
        notes_of=p_notes,
        failures=[*failures(ablation), *([] if beside_table(ablation)[1] else ablation["missing"])],
        command=ablation["command"],
        settings=[
            ("recipe", ablation["recipe"]),
            ("settings", ", ".join(ablation["overrides"]) or "none"),
            *((row["label"], ", ".join(row["settings"])) for row in ablation["rows"]),
        ],
        machine=ablation["machine"],
        versions=ablation["versions"],
    )


def title(ablation: Mapping[str, Any]) -> str:
    """What was varied, of what, on what."""
    return f"{ablation['title']}: {ablation['method']} on {Path(ablation['data']).name}"


def verdict(ablation: Mapping[str, Any]) -> str:
    """Which values can be told from the recipe's own one, in a sentence or two that claim no more than the tests."""
    metric = headline(ablation)
    others = [
        (row["label"], row["difference"]["greedy"][metric]) for row in ablation["rows"] if row["difference"] is not None
    ]
    own = next(row for row in ablation["rows"] if row["is_own"])["metrics"]["greedy"][metric]["mean"]
    said = f"The recipe's own value, {ablation['own']}, has {label(metric)} {own:.4f} with greedy profiles."
    told = [
        f"{name} is {'better' if found['difference'] > 0 else 'worse'} ({found['difference']:+.4f}, p "
        f"{_p_in_words(found['p_holm'])})"
        for name, found in others
        if found["p_holm"] < SIGNIFICANT
    ]
    level = [name for name, found in others if found["p_holm"] >= SIGNIFICANT]
    if not others:
        said += " No other value has a run."
    if told:
        said += f" {', '.join(told)}."
    if level:
        said += f" {', '.join(level)} cannot be told from it (p ≥ {SIGNIFICANT:g}, Holm)."
    return said


def notes(ablation: Mapping[str, Any]) -> list[str]:
    """What the numbers are, in sentences."""
    seeds = ablation["seeds"]
    averaged = "averaged for each session first" if len(seeds) > 1 else "one run of each value"
    is_set = any(override.partition("=")[0].strip() == ablation["key"] for override in ablation["overrides"])
    whose = f"The recipe's own value, {ablation['own']}, is that of --set {ablation['key']}."
    return [
        *([whose] if is_set else []),
        f"{ablation['num_sessions']:,} {ablation['split']} sessions of {ablation['num_users']:,} users; seeds "
        f"{', '.join(map(str, seeds))}, {averaged}.",
        *ablation["notes"],
        "In brackets: 95% bootstrap interval; sessions of one user are drawn together, and swapped together in the "
        "paired permutation tests.",
        f"p: {label(headline(ablation))} against the recipe's own value, corrected by Holm over the values.",
        f"sd of seeds: standard deviation of their means of {label(headline(ablation))}. Minutes: optimizer steps of "
        f"one run, with the rollouts of the policy. {BASELINE}: before training, with its interval. Overlong: profiles "
        "without an end within the limit. Copied: words in runs of three or more from titles of the history. "
        "Repetition: runs of three words that a profile of the last rollout has written before.",
        f"Log-likelihood at temperature {LIKELIHOOD_TEMPERATURE:g}. {ARROW}.",
    ]


def failures(ablation: Mapping[str, Any]) -> list[str]:
    """The runs that could not be trained, each with the reason."""
    return [f"{one['value']}, seed {one['seed']}, failed: {one['reason']}" for one in ablation["failures"]]


def p_notes(profile: Mapping[str, Any]) -> str:
    """The length of a profile, and whether it was cut."""
    return f"{profile['tokens']} tokens" + ("" if profile["finished"] else ", no end")


def _means_row(ablation: Mapping[str, Any], row: Mapping[str, Any], decoding: str, metrics: Sequence[str]) -> list[str]:
    found = row["metrics"][decoding]
    spread = found[headline(ablation)]["seed_sd"]
    return [
        row["label"] + (" (the recipe's)" if row["is_own"] else ""),
        *(mean_text(found.get(metric)) for metric in metrics),
        _p_of(ablation, row, decoding),
        ", ".join(map(str, row["seeds"])),
        "–" if spread is None else f"{spread:.4f}",
        mean_text(row["untrained"].get(decoding, {}).get(headline(ablation))),
        f"{row['minutes']:.1f}",
        f"{row['tokens'][decoding]:.1f}" if decoding in row["tokens"] else "–",
        *(f"{row[name][decoding]:.0%}" if decoding in row[name] else "–" for name in ("overlong", "copied_share")),
        "–" if row["repetition"] is None else f"{row['repetition']:.0%}",
    ]


def _p_of(ablation: Mapping[str, Any], row: Mapping[str, Any], decoding: str) -> str:
    return p_text(row["difference"] and row["difference"][decoding][headline(ablation)]["p_holm"])


def _compared(
    ablation: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], p: str
) -> tuple[list[str], list[list[str]]]:
    """A table of differences in NDCG at the cutoff, log-likelihood and log-rank."""
    there = {row["metric"] for row in rows}
    metrics = [metric for metric in (headline(ablation), LOG_LIKELIHOOD, LOG_RANK) if metric in there]
    head = [p if name == "p" else name for name in comparison_header(metrics)]
    return [ablation["title"].lower(), "less", *head[2:]], comparison_rows(rows, metrics)


def _split(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[str, Sequence[str], list[list[tuple[str, str]]]]:
    """A table whose cells are a text and the interval in brackets behind it, if there is one."""
    return caption, head, [[_above_interval(cell) for cell in row] for row in rows]


def _above_interval(cell: str) -> tuple[str, str]:
    mean, bracket, interval = cell.partition(" [")
    return mean, f"[{interval}" if bracket else ""


def _decodings(ablation: Mapping[str, Any]) -> list[str]:
    return list(ablation["rows"][0]["metrics"])


def _p_in_words(p_value: float) -> str:
    return p_text(p_value) if p_value < 0.001 else f"= {p_text(p_value)}"
