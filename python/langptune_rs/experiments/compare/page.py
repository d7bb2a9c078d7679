"""A comparison as an HTML page that loads nothing from elsewhere, as Markdown, and as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from langptune_rs.evaluation.summary import SIGNIFICANT
from langptune_rs.evaluation.tables import latex_cell, latex_table, markdown_table
from langptune_rs.experiments.compare.fitting import VALIDATION
from langptune_rs.experiments.compare.orderings import FAMILIES, TABLE_1
from langptune_rs.experiments.compare.rows import ACROSS, GROUPS
from langptune_rs.experiments.compare.task import flat
from langptune_rs.experiments.compare.timing import SESSIONS
from langptune_rs.experiments.pages import render
from langptune_rs.experiments.report.charts import interval_chart
from langptune_rs.experiments.report.tables import (
    ARROW,
    compared_metrics,
    comparison_rows,
    label,
    p_text,
)
from langptune_rs.files import write_text

PAGES = ("comparison.html", "comparison.md", "comparison.tex")


def write_pages(comparison: Mapping[str, Any], output: Path) -> None:
    """Write `PAGES` into `output`."""
    for name, text in zip(PAGES, (html(comparison), markdown(comparison), latex(comparison)), strict=True):
        write_text(output / name, text)


def header(comparison: Mapping[str, Any]) -> list[str]:
    """The names of the columns of `cells`."""
    return ["method", *map(label, _metrics(comparison)), "p (Holm)", "seeds", "sd of seeds", "fit", "memory", "ms each"]


def cells(comparison: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """A row of the table: name, means with their intervals, p against the best of its group, spread, costs."""
    headline = f"ndcg@{comparison['k']}"
    p = next(
        (
            test["p_holm"]
            for test in comparison["tests"]
            if test["family"] == row["group"]
            and test["is_shown"]
            and test["other"] == row["name"]
            and test["metric"] == headline
        ),
        None,
    )
    spread = row["metrics"][headline]["seed_sd"]
    return [
        row["name"],
        *(_mean(row["metrics"].get(metric)) for metric in _metrics(comparison)),
        p_text(p),
        str(len(row["seeds"])) + (f" of {len(row['seeds']) + len(row['failures'])}" if row["failures"] else ""),
        "–" if spread is None else f"{spread:.4f}",
        *_costs(row),
    ]


def markdown(comparison: Mapping[str, Any]) -> str:
    """The table, its notes, and the tests, in Markdown. The best of a column is bold, the next one italic."""
    rows = []
    for row in comparison["rows"]:
        shown = cells(comparison, row)
        for place, metric in enumerate(_metrics(comparison), start=1):
            mark = {"best": "**", "next": "_"}.get(_standing(comparison, row, metric), "")
            shown[place] = f"{mark}{shown[place]}{mark}"
        rows.append([shown[0], row["group"], *shown[1:]])
    name, *others = header(comparison)
    parts = [
        markdown_table([name, "group", *others], rows),
        " ".join(notes(comparison)),
        markdown_table(TEST_HEADER, cells_of_tests(comparison)),
        *_orderings_markdown(comparison),
        *_guards_markdown(comparison),
        *what_was_tried(comparison),
        *tuning_notes(comparison),
        *_missing(comparison),
    ]
    return "\n\n".join(parts) + "\n"


def what_was_tried(comparison: Mapping[str, Any]) -> list[str]:
    """The settings of each tuned method, with their scores on validation, a sentence each."""
    return [f"{row['name']}. {_shown_tuning(row['tuning'])}" for row in comparison["rows"] if row["tuning"]]


def _missing(comparison: Mapping[str, Any]) -> list[str]:
    """The methods and the seeds that have no numbers, each with the reason."""
    left_out = [f"{out['method']} is left out: {out['reason']}" for out in comparison["left_out"]]
    return [*left_out, *_failures(comparison)]


def tuning_notes(comparison: Mapping[str, Any]) -> list[str]:
    """What a reader must know of fits that were not done, refused settings, choices at an edge, fits made elsewhere."""
    said = []
    for row in comparison["rows"]:
        said += [f"{row['name']}, seed {left['seed']}: {left['what']}" for left in row["unfinished"]]
        if (tuning := row["tuning"]) is None:
            continue
        said += [
            f"{row['name']} refused {_shown_settings(tried['settings'])}: {tried['failed']}"
            for tried in tuning["tried"]
            if "failed" in tried
        ]
        worked = [tried["settings"] for tried in tuning["tried"] if "failed" not in tried]
        chosen = tuning["tried"][tuning["chosen"]]["settings"]
        for key, value in chosen.items():
            values = sorted({settings[key] for settings in worked})
            if len(values) > 2 and value in (values[0], values[-1]):
                extreme = "lowest" if value == values[0] else "highest"
                said.append(f"{row['name']}: {key} = {value} is the {extreme} of {len(values)} values that were tried.")
    return said + _made_elsewhere(comparison)


def _made_elsewhere(comparison: Mapping[str, Any]) -> list[str]:
    """Which fits were kept from another machine or other packages than those of the comparison, by what differs."""
    fits: dict[str, list[str]] = {}
    for row in comparison["rows"]:
        for one in row["made"]:
            how = one["how"]
            if how["machine"] is None:
                what = "Fitted by an earlier version, which did not note its machine"
                what += "" if how["notes_unfinished"] else ", nor what it left undone"
            else:
                versions = {name: how["versions"].get(name) for name in comparison["versions"]}
                others = [f"{name} {own}" for name, own in versions.items() if own != comparison["versions"][name]]
                what = ", ".join([*([how["machine"]] if how["machine"] != comparison["machine"] else []), *others])
                what = f"Fitted with {what}" if what else ""
            if what:
                fits.setdefault(what, []).append(f"{row['name']} {one['seed']}")
    return [f"{what}, method and seed: {', '.join(names)}." for what, names in fits.items()]


def _shown_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in settings.items())


def _shown_tuning(tuning: Mapping[str, Any] | None) -> str:
    """What was tried on validation, and how it ranked, in one sentence; empty where nothing was."""
    if tuning is None:
        return ""
    tried = (
        f"{_shown_settings(found['settings'])}: "
        + next((f"{value:.4f}" for name, value in found.items() if name.startswith("ndcg")), "refused")
        for found in tuning["tried"]
    )
    trial = f" with {_shown_settings(tuning['trial'])}" if tuning["trial"] else ""
    return f"Tried{trial}, NDCG on validation: {'; '.join(tried)}."


def _orderings_markdown(comparison: Mapping[str, Any]) -> list[str]:
    if not comparison["orderings"]:
        return []
    table = markdown_table(*cells_of_orderings(comparison))
    return [f"{ORDERING_TITLE}:", table, " ".join(ordering_notes(comparison))]


def _guards_markdown(comparison: Mapping[str, Any]) -> list[str]:
    rows = cells_of_guards(comparison)
    if not rows:
        return []
    table = markdown_table(guard_header(comparison), rows)
    return [f"{GUARD_TITLE}:", table, " ".join(guard_notes(comparison)), *doubts(comparison)]


def latex(comparison: Mapping[str, Any]) -> str:
    """Tabulars of booktabs: the means and p, by group, the best bold and the next underlined, as in the paper.

    A second one has the intervals, spread and costs. With runs another has the orderings of table 1, and where it was
    measured, one has what the profiles rest on. The last one has the paired tests, and notes follow as comments.
    """
    metrics = _metrics(comparison)
    names = ["method", *map(label, metrics), "p (Holm)"]
    lines = latex_table(names, [[row["name"], *("0" for _ in metrics), ""] for row in comparison["rows"]]).splitlines()
    body = []
    for place, row in enumerate(comparison["rows"]):
        if not place or row["group"] != comparison["rows"][place - 1]["group"]:
            body += [r"\midrule"] * bool(place)
            body.append(rf"\multicolumn{{{len(names)}}}{{l}}{{\emph{{{row['group']}}}}} \\")
        name = lines[4 + place].split(" & ")[0]
        means = []
        for metric in metrics:
            numbers = row["metrics"].get(metric)
            mean = "--" if numbers is None else f"{numbers['mean']:.4f}"
            mark = {"best": r"\textbf{%s}", "next": r"\underline{%s}"}.get(_standing(comparison, row, metric), "%s")
            means.append(mark % mean)
        p = latex_cell(cells(comparison, row)[len(metrics) + 1])
        body.append(" & ".join([name, *means, p]) + r" \\")
    shown = [i for i in range(len(header(comparison))) if i != len(metrics) + 1]  # all but p
    costs = [[cells(comparison, row)[i] for i in shown] for row in comparison["rows"]]
    of_orderings, guards = cells_of_orderings(comparison), cells_of_guards(comparison)
    of_tests = cells_of_tests(comparison)
    said = [*notes(comparison), *what_was_tried(comparison), *tuning_notes(comparison), *_missing(comparison)]
    return (
        "\n".join(
            [
                *(*lines[:4], *body, *lines[-2:]),
                *("", "% Intervals, spread and costs", latex_table([header(comparison)[i] for i in shown], costs)),
                *(["", f"% {ORDERING_TITLE}", latex_table(*of_orderings)] if of_orderings[1] else []),
                *(["", f"% {GUARD_TITLE}", latex_table(guard_header(comparison), guards)] if guards else []),
                *(["", "% Paired tests", latex_table(TEST_HEADER, of_tests)] if of_tests else []),
                "",
                *(f"% {' '.join(note.split())}" for note in said),
            ]
        )
        + "\n"
    )


TEST_HEADER = ["method", "less", "of", "difference", "p", "p (Holm)"]
"""The names of the columns of `cells_of_tests`."""


def cells_of_tests(comparison: Mapping[str, Any]) -> list[list[str]]:
    """The paired tests of NDCG at the cutoff."""
    return [
        [
            test["method"],
            test["other"],
            test["family"],
            "{:+.4f} [{:+.4f}, {:+.4f}]".format(test["difference"], *test["interval"]),
            p_text(test["p"]),
            p_text(test["p_holm"]),
        ]
        for test in comparison["tests"]
        if test["is_shown"] and test["metric"] == f"ndcg@{comparison['k']}"
    ]


ORDERING_TITLE = "What training adds: the orderings of the paper's table 1"


def cells_of_orderings(comparison: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and a row for each pair and decoding: differences, each with its corrected p."""
    rows = comparison["orderings"]
    metrics = compared_metrics(rows)
    head = ["ordering", "profiles", *(name for metric in metrics for name in (label(metric), f"p, {label(metric)}"))]
    return head, [[f"{a} over {b}", *others] for a, b, *others in comparison_rows(rows, metrics, ("p_holm",))]


def ordering_notes(comparison: Mapping[str, Any]) -> list[str]:
    """Which orderings hold in NDCG at the cutoff, which do not, and which were not tested, in sentences."""
    said = []
    of_headline = [row for row in comparison["orderings"] if row["metric"] == f"ndcg@{comparison['k']}"]
    for decoding in dict.fromkeys(row["decoding"] for row in of_headline):
        parts = []
        for family in FAMILIES:
            own = [row for row in of_headline if (row["decoding"], row["family"]) == (decoding, family)]
            numbers = f"{sum(row['holds'] for row in own)} of {len(own)}"
            failing = [row for row in own if not row["holds"]]
            if family == TABLE_1 and own:
                names = [f"{row['method']} over {row['other']} {_how_far(row)}" for row in failing]
                parts.append(
                    f"{numbers} orderings of table 1 hold" + (f", not {', nor '.join(names)}" if names else "")
                )
            elif own:
                names = [f"{row['other']} {_how_far(row)}" for row in failing]
                ahead = f"LangPTune is ahead of {numbers} methods without profiles"
                parts.append(ahead + (f", not of {', nor of '.join(names)}" if names else ""))
        said.append(f"With {decoding} profiles {'; '.join(parts)}.")
    if not any(row["decoding"] == "sampled" for row in of_headline):
        said.append("No sampled profiles were evaluated.")
    tested = {(row["method"], row["other"]) for row in of_headline}
    untested = [f"{a} over {b}" for a, b in FAMILIES[TABLE_1] if (a, b) not in tested]
    if untested:
        said.append(f"No runs were given that would test {', '.join(untested)}.")
    return [
        *said,
        *comparison["unlike"],
        f"An ordering holds, and a method is ahead, where its {label(of_headline[0]['metric'])} is higher and p "
        f"is below {SIGNIFICANT:g} after Holm's correction, which is over the orderings of table 1, or over the "
        f"methods without profiles, in one decoding and metric. {ARROW}.",
    ]


def _how_far(row: Mapping[str, Any]) -> str:
    return f"({row['difference']:+.4f}, p {_equals(p_text(row['p_holm']))})"


GUARD_TITLE = "What the profiles rest on"


def guard_header(comparison: Mapping[str, Any]) -> list[str]:
    """The names of the columns of `cells_of_guards`."""
    own = label(f"ndcg@{comparison['k']}")
    swapped, titles = ("another's profile", "p, another's"), ("titles", "p, titles")
    return ["method", own, "title out", "changed", "copied", *swapped, "no history", *titles]


def cells_of_guards(comparison: Mapping[str, Any]) -> list[list[str]]:
    """A row for each method whose guards were measured: see `guards.py`."""
    found, headline = [], f"ndcg@{comparison['k']}"
    for row in comparison["rows"]:
        if (guards := row["guards"]) is None:
            continue
        swapped = guards["swapped"]
        found.append(
            [
                row["name"],
                f"{row['metrics'][headline]['mean']:.4f}",
                _mean(guards["scrubbed"]),
                f"{guards['changed_share']:.0%}",
                f"{guards['copied_share']:.0%}",
                _mean(swapped),
                p_text(None if swapped is None else swapped["p"]),
                _mean(guards["memorised"]),
                _mean(guards["titles"]),
                p_text(guards["titles"]["p"]),
            ]
        )
    return found


def guard_notes(comparison: Mapping[str, Any]) -> list[str]:
    """What the columns of `cells_of_guards` are, in sentences."""
    ndcg = label(f"ndcg@{comparison['k']}")
    return [
        f"Title out: {ndcg} without the words of the target's own title in the profile, but function words, single "
        "characters and years in brackets; changed: the share of profiles that had such words.",
        "Copied: the share of words in runs of three or more from titles of the history.",
        f"Another's profile: {ndcg} by the profile of another user, drawn by the seed; p, another's: of the paired "
        "permutation test against the method itself, not corrected.",
        f"No history: {ndcg} by one greedy profile that the policy wrote for an empty history.",
        f"Titles: {ndcg} by the same embedder where it reads the titles of the history in place of a profile; p, "
        "titles: as before.",
    ]


def doubts(comparison: Mapping[str, Any]) -> list[str]:
    """What speaks against a method's profiles, or could not be measured, in sentences."""
    said = []
    for row in comparison["rows"]:
        if (guards := row["guards"]) is None:
            continue
        swapped = guards["swapped"]
        if swapped is None:
            said.append(
                f"{row['name']}: one user has more than half of the sessions, so no swap of profiles between users "
                "reaches all."
            )
        elif swapped["difference"] <= 0 or swapped["p"] >= SIGNIFICANT:
            said.append(
                f"{row['name']} does not rank better by a user's own profile than by another user's "
                f"(difference {swapped['difference']:+.4f}, p {_equals(p_text(swapped['p']))}): its profiles do not "
                "show what users differ in."
            )
    return said


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def notes(comparison: Mapping[str, Any]) -> list[str]:
    """What the numbers are, in sentences."""
    is_validation, headline = comparison["split"] == VALIDATION, f"ndcg@{comparison['k']}"
    across = sum(test["family"] == ACROSS and test["metric"] == headline for test in comparison["tests"])
    return [
        f"{comparison['num_sessions']:,} {comparison['split']} sessions of {comparison['num_users']:,} users; the next "
        f"item is ranked among all {comparison['num_items']:,} items but those of the history.",
        *_learned_from(comparison),
        "In brackets: 95% bootstrap interval; sessions of one user are drawn together, and swapped together in the "
        "paired permutation tests. Both say what other users would change, with these seeds.",
        f"p: NDCG@{comparison['k']} against the best method of the group, corrected by Holm over all pairs of the "
        "group."
        + (
            f" p of a test is 0.00001 at least, and {across / 1e5:g} corrected over {across:,} pairs across groups."
            if across > 1
            else ""
        ),
        "A session's scores are averaged over the seeds; sd of seeds is the standard deviation of their means of "
        f"NDCG@{comparison['k']}.",
        *(
            [f"Methods learned from {comparison['train_share']:g} of the train sessions, drawn anew for each seed."]
            if comparison["train_share"] < 1
            else []
        ),
        "Settings were chosen on the validation split"
        + (
            ", on these very sessions, and so was when to stop: such methods look better here than they are."
            if is_validation
            else "."
        ),
        "Fit: time for one seed with its settings; of a run, the steps of its training with what the policy wrote for "
        "them. Memory: the most that the process held, of a run while it trained. ms each: to rank one session, all of "
        f"them together; with a policy also to write its profile, {SESSIONS} sessions together, by the first run.",
    ]


def _learned_from(comparison: Mapping[str, Any]) -> list[str]:
    """Who learned from more than the train sessions, and what the split leaks of the sessions that are ranked."""
    said, split, leakage = [], comparison["split"], comparison["leakage"]
    learned = [row["name"] for row in comparison["rows"] if row["learns_from_histories"]]
    if learned:
        said.append(
            f"{', '.join(learned)} learned from the train sessions and from the histories of validation and test, "
            "never from their targets; no other method learned from more than the train sessions."
        )
    counts = {key: f"{count:,}" for key, count in leakage.items()}
    train = "train" if comparison["train_share"] == 1 else "train (all of them, not the share alone)"
    if f"{split}_users_in_train" in counts:
        said.append(
            f"Of the {counts[f'{split}_users']} users of all {split} sessions {counts[f'{split}_users_in_train']} have "
            f"{train} sessions too; {counts[f'{split}_targets_in_train_histories_of_same_user']} targets stand in a "
            "train history of the same user."
        )
    if f"train_targets_after_median_{split}_target" in counts:
        said.append(
            f"{counts[f'train_targets_after_median_{split}_target']} of the {counts['train_sessions']} targets of "
            f"{train} sessions came later than the middle one of {split}."
        )
    return said


def html(comparison: Mapping[str, Any]) -> str:
    """The page. Every text that comes from data or settings is escaped."""
    headline = f"ndcg@{comparison['k']}"
    best = max(comparison["rows"], key=lambda row: row["metrics"][headline]["mean"])
    chart = interval_chart(
        "ndcg",
        "; ".join(f"{row['name']}: {_mean(row['metrics'][headline])}" for row in comparison["rows"]),
        [
            (row["name"], *(row["metrics"][headline][part] for part in ("mean", "low", "high")))
            for row in comparison["rows"]
        ],
        best["name"],
    )
    groups = [
        {"name": group, "rows": [_shown(comparison, row) for row in comparison["rows"] if row["group"] == group]}
        for group in GROUPS
    ]
    ordering_header, of_orderings = cells_of_orderings(comparison)
    return render(
        "compare/page.html.j2",
        title=f"Methods on {Path(comparison['data']).name}",
        headline=label(headline),
        verdict=verdict(comparison),
        chart=Markup(chart),
        header=header(comparison),
        num_metrics=len(_metrics(comparison)),
        groups=[group for group in groups if group["rows"]],
        notes=notes(comparison),
        test_header=TEST_HEADER,
        tests=cells_of_tests(comparison),
        ordering_title=ORDERING_TITLE,
        ordering_header=ordering_header,
        orderings=[list(map(_cell, row)) for row in of_orderings],
        ordering_notes=ordering_notes(comparison) if comparison["orderings"] else [],
        guard_title=GUARD_TITLE,
        guard_header=guard_header(comparison),
        guards=[list(map(_cell, row)) for row in cells_of_guards(comparison)],
        guard_notes=guard_notes(comparison),
        doubts=doubts(comparison),
        without_history=[
            (row["name"], seed, profile)
            for row in comparison["rows"]
            if row["guards"] and row["decoding"] == "greedy"
            for seed, profile in zip(row["seeds"], row["guards"]["without_history"], strict=True)
        ],
        left_out=comparison["left_out"],
        failures=_failures(comparison),
        tuning_notes=tuning_notes(comparison),
        settings=[
            (row["name"], _texts(row["settings"]), _shown_tuning(row["tuning"]))
            for row in comparison["rows"]
            if row["settings"]
        ],
        command=comparison["command"],
        machine=comparison["machine"],
        versions=comparison["versions"],
    )


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings with the keys of inner sections behind a dot, and lists as their elements with commas between."""
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in flat(settings).items()
    }


def verdict(comparison: Mapping[str, Any]) -> str:
    """Which method is ahead, and of which others that can be told from chance, in one sentence or two."""
    headline = f"ndcg@{comparison['k']}"
    rows = sorted(comparison["rows"], key=lambda row: -row["metrics"][headline]["mean"])
    first = rows[0]
    said = f"{first['name']} has the highest {label(headline)}, {first['metrics'][headline]['mean']:.4f}."
    tests = [
        test
        for test in comparison["tests"]
        if test["metric"] == headline and first["name"] in (test["method"], test["other"])
    ]
    level = [
        test["other"] if test["method"] == first["name"] else test["method"]
        for test in tests
        if test["p_holm"] >= SIGNIFICANT
    ]
    if not tests:
        return said
    if not level:
        return f"{said} It is ahead of every other method, with p < {SIGNIFICANT:g} (Holm)."
    return f"{said} It cannot be told from {', '.join(dict.fromkeys(level))} (p ≥ {SIGNIFICANT:g}, Holm)."


def _shown(comparison: Mapping[str, Any], row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The cells of a row as text, interval and standing."""
    texts = cells(comparison, row)
    standings = ["", *(_standing(comparison, row, metric) for metric in _metrics(comparison))]
    standings += [""] * (len(texts) - len(standings))
    return [{**_cell(text), "standing": standing} for text, standing in zip(texts, standings, strict=True)]


def _cell(text: str) -> dict[str, str]:
    """The text of a cell, and its interval apart."""
    mean, bracket, interval = text.partition(" [")
    return {"text": mean, "interval": f"[{interval}" if bracket else ""}


def _metrics(comparison: Mapping[str, Any]) -> list[str]:
    """The metrics of the table: those of the paper, cut at k."""
    return [metric for metric in comparison["rows"][0]["metrics"] if "@" in metric]


def _standing(comparison: Mapping[str, Any], row: Mapping[str, Any], metric: str) -> str:
    """`best` or `next` for the two highest means of a column, else nothing. Equal means stand alike."""
    means = {other["metrics"][metric]["mean"] for other in comparison["rows"] if metric in other["metrics"]}
    ordered = sorted(means, reverse=True)[:2]
    own = row["metrics"].get(metric)
    place = ordered.index(own["mean"]) if own and own["mean"] in ordered else 2
    return ("best", "next", "")[place]


def _mean(numbers: Mapping[str, Any] | None) -> str:
    return "–" if numbers is None else "{mean:.4f} [{low:.4f}, {high:.4f}]".format(**numbers)


def _costs(row: Mapping[str, Any]) -> list[str]:
    seconds, memory, each = row["fit_seconds"], row["peak_memory"], row["milliseconds"]
    return [
        "–" if seconds is None else _duration(seconds),
        "–" if memory is None else f"{memory / 2**30:.1f} GiB",
        "–" if each is None else f"{each:.0f}" if each >= 10 else f"{each:.2g}",
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _failures(comparison: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"{row['name']}, seed {failure['seed']}, failed: {failure['reason']}"
        for row in comparison["rows"]
        for failure in row["failures"]
    ]
