"""The report of a run: one HTML file that opens anywhere and loads nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from langptune_rs.config import RunConfig, to_toml
from langptune_rs.data import Dataset
from langptune_rs.data.store.dataset import train_sessions_in
from langptune_rs.data.wording.excerpts import shorten
from langptune_rs.evaluation.summary import (
    LIKELIHOOD_TEMPERATURE,
    LOG_LIKELIHOOD,
    LOG_RANK,
    LOWER_IS_BETTER,
    SIGNIFICANT,
)
from langptune_rs.experiments.report.charts import Series, interval_chart, line_chart
from langptune_rs.experiments.report.tables import (
    ARROW,
    compared_metrics,
    comparison_header,
    comparison_rows,
    headline_metric,
    label,
    p_text,
)
from langptune_rs.experiments.steerability.page import section
from langptune_rs.files import write_text
from langptune_rs.runs.folder import open_dataset, read_config
from langptune_rs.runs.metrics_log import read_metrics, step_seconds
from langptune_rs.runs.results import (
    BASELINE,
    PARTS,
    TABLES,
    per_user_path,
    profiles_path,
    read_per_user,
    read_profiles,
    read_results,
    read_steerability,
    results_path,
    unlike_results,
)

NUM_EXAMPLES = 5
EXAMPLE_RULE = (
    "The test sessions are sorted by how much the reciprocal rank of the user's next item changed, from the greatest "
    f"loss to the greatest gain, and {NUM_EXAMPLES} are taken at equal distances: the one that lost most, the first "
    "quartile, the median, the third quartile, the one that gained most."
)
REVIEW_CHARACTERS = 220


def write_report(run: Path) -> Path:
    """Write `run/report.html` from the run's metrics and its results on the test split; returns its path.

    Raises `RunError` when `run` is no run, has not been evaluated on the test split, or has a file that is damaged.
    """
    run = Path(run)
    config = read_config(run)
    dataset = open_dataset(config, run)
    results, per_user, profiles = read_results(run), read_per_user(run), read_profiles(run)
    _check_together(run, config, results, dataset, per_user, profiles)
    metrics = read_metrics(run)
    path = run / "report.html"
    write_text(path, render(config, results, metrics, dataset, per_user, profiles, read_steerability(run)))
    return path


def render(
    config: RunConfig,
    results: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    dataset: Dataset,
    per_user: pl.DataFrame,
    profiles: pl.DataFrame,
    steerability: dict[str, Any] | None = None,
) -> str:
    """The report as HTML. Every text that comes from data, models or configuration is escaped.

    It has a section about edits of profiles where `steerability` is what `measure_steerability` returns.
    """
    environment = Environment(
        loader=PackageLoader("langptune_rs.experiments.report.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        title=f"{config.method} on {Path(config.data.source).name}",
        verdict=verdict(results),
        gains=own_gains(results),
        facts=_facts(config, results, dataset, metrics),
        tables={table: _table(results, table) for table in TABLES},
        comparisons=_comparisons(results),
        arrow=ARROW,
        likelihood_temperature=LIKELIHOOD_TEMPERATURE,
        metric_labels=[label(metric) for metric in _metrics(results)],
        headline=label(headline_metric(results)),
        interval_chart=Markup(_interval_chart(results)),
        profile_rows=_profile_rows(results),
        charts=_charts(config, metrics),
        examples=[_example(row, dataset, profiles) for row in choose_examples(per_user, config.method)],
        example_rule=EXAMPLE_RULE,
        method=config.method,
        baseline=BASELINE,
        results=results,
        config_text=to_toml(config),
        leakage=dataset.info.get("leakage", {}),
        steerability=section(steerability) if steerability else None,
    )


def _check_together(
    run: Path,
    config: RunConfig,
    results: dict[str, Any],
    dataset: Dataset,
    per_user: pl.DataFrame,
    profiles: pl.DataFrame,
) -> None:
    """Raise `RunError` unless the files of an evaluation are of this run, and of the same sessions."""
    if results["config"]["method"] != config.method:
        raise unlike_results(results_path(run), f"is of the method {results['config']['method']!r}", run)
    ranks = per_user.filter(pl.col("table") == "methods", pl.col("method").is_in([BASELINE, config.method]))
    if ranks.filter(pl.col("ranks").list.first().fill_null(0) < 1).height:
        raise unlike_results(per_user_path(run), "has ranks below 1", run)
    sessions = dataset.sessions.session_ids
    greedy = profiles.filter(pl.col("decoding") == "greedy")
    for path, table, column in ((per_user_path(run), ranks, "method"), (profiles_path(run), greedy, "policy")):
        for name in (BASELINE, config.method):
            own = table.filter(pl.col(column) == name)["session_id"]
            if len(own) != results["num_sessions"] or own.n_unique() != len(own):
                raise unlike_results(path, f"has other sessions of {name} than results.json", run)
            if not np.isin(own.to_numpy(), sessions).all():
                raise unlike_results(path, f"has a session of {name} that is not in the data", run)


def verdict(results: dict[str, Any]) -> str:
    """What the training gained, in one sentence that claims no more than the significance test shows."""
    metric, method = headline_metric(results), results["config"]["method"]
    before, after = results["methods"][BASELINE][metric], results["methods"][method][metric]
    numbers = f"{label(metric)} {before['mean']:.4f} before training, {after['mean']:.4f} after"
    test = f"p {_p_in_words(after['p_value'])}, paired permutation test over {results['num_sessions']} sessions"
    if after["p_value"] >= SIGNIFICANT:
        return f"No difference shown at the {SIGNIFICANT:.0%} level: {numbers} ({test})."
    direction = "better" if after["mean"] > before["mean"] else "worse"
    return f"{method} ranks {direction} than {BASELINE}: {numbers} ({test})."


def own_gains(results: dict[str, Any]) -> list[str]:
    """A sentence for each trained model of two: what it gained over the same run without it, in every metric shown."""
    rows = [row for row in results["comparisons"] or [] if row["method"] == results["config"]["method"]]
    whose = {PARTS["contrastive"]: "policy", PARTS["rlso"]: "embedder"}
    shown = compared_metrics(rows)
    sentences = []
    for other, model in whose.items():
        for decoding in dict.fromkeys(row["decoding"] for row in rows if row["other"] == other):
            gains = (
                f"{label(row['metric'])} {row['difference']:+.4f} (p {_p_in_words(row['p'])})"
                for row in rows
                if (row["other"], row["decoding"]) == (other, decoding) and row["metric"] in shown
            )
            sentences.append(f"The {model}'s own gain, {decoding} profiles: {', '.join(gains)}.")
    return sentences


def choose_examples(per_user: pl.DataFrame, method: str) -> list[dict[str, Any]]:
    """The sessions of `EXAMPLE_RULE`, each with session_id, user_id and the target's ranks before and after."""
    greedy = per_user.filter(pl.col("table") == "methods").with_columns(rank=pl.col("ranks").list.first())
    before = greedy.filter(pl.col("method") == BASELINE).select("session_id", "user_id", before="rank")
    after = greedy.filter(pl.col("method") == method).select("session_id", after="rank")
    gain = 1 / pl.col("after") - 1 / pl.col("before")
    rows = before.join(after, on="session_id").with_columns(gain=gain).sort("gain", "session_id").to_dicts()
    places = np.linspace(0, len(rows) - 1, min(NUM_EXAMPLES, len(rows)))
    return [rows[round(place)] for place in places]


@dataclass(frozen=True)
class HistoryItem:
    """An item of an example's history, as the page shows it."""

    title: str
    rating: str
    review: str


def _example(row: dict[str, Any], dataset: Dataset, profiles: pl.DataFrame) -> dict[str, Any]:
    """One user's example, as the template takes it."""
    i = int(np.flatnonzero(dataset.sessions.session_ids == row["session_id"])[0])
    session = dataset.sessions.take([i])
    written = profiles.filter((pl.col("session_id") == row["session_id"]) & (pl.col("decoding") == "greedy"))
    by_policy = {profile["policy"]: profile for profile in written.to_dicts()}
    before, after = by_policy[BASELINE], by_policy[next(name for name in by_policy if name != BASELINE)]
    change = row["before"] - row["after"]
    return {
        "user": row["user_id"],
        "history": [
            HistoryItem(dataset.catalog.titles[item], _rating(rating), shorten(review or "", REVIEW_CHARACTERS))
            for item, rating, review in zip(session.histories[0], session.ratings[0], session.reviews[0], strict=True)
        ],
        "target": dataset.catalog.titles[session.targets[0]],
        "outcome": "better" if change > 0 else "worse" if change < 0 else "same",
        "profiles": [
            {"name": name, "rank": rank, "text": profile["text"], "notes": _profile_notes(profile)}
            for name, rank, profile in (
                ("Before training", row["before"], before),
                ("After training", row["after"], after),
            )
        ],
    }


def _profile_notes(profile: dict[str, Any]) -> str:
    ending = "" if profile["finished"] else ", cut at the limit"
    return f"{profile['tokens']} tokens{ending}, {profile['copied_share']:.0%} copied"


def _rating(rating: float) -> str:
    return "not rated" if math.isnan(rating) else f"rated {rating:g}"


def _metrics(results: dict[str, Any]) -> list[str]:
    return list(results["methods"][BASELINE])


def _table(results: dict[str, Any], table: str) -> list[dict[str, Any]]:
    """Rows of a table: the method's name, each metric's mean and interval, and the headline metric's p-value."""
    headline = headline_metric(results)
    return [
        {
            "name": PARTS.get(method, method),
            "is_ours": method == results["config"]["method"],
            "scores": [_score(scores[metric]) for metric in _metrics(results)],
            "p": p_text(scores[headline]["p_value"]),
            "p_holm": p_text(scores[headline]["p_holm"]),
        }
        for method, scores in results[table].items()
    ]


def _score(numbers: dict[str, Any] | None) -> dict[str, str]:
    if numbers is None:
        return {"mean": "–", "interval": ""}
    low, high = f"{numbers['low']:.4f}", f"{numbers['high']:.4f}"
    return {"mean": f"{numbers['mean']:.4f}", "interval": f"{low} to {high}" if "-" in low else f"{low}–{high}"}


def _comparisons(results: dict[str, Any]) -> dict[str, Any] | None:
    """The table of comparisons: the names of its columns, and its rows. None where an earlier version made none."""
    rows = results["comparisons"]
    if rows is None:
        return None
    metrics = compared_metrics(rows)
    cells = comparison_rows(rows, metrics)
    return {
        "header": comparison_header(metrics),
        "rows": [[_above_interval(cell) for cell in row] for row in cells],
        "metrics": [label(metric) for metric in metrics],
    }


def _above_interval(cell: str) -> tuple[str, str]:
    """ "+0.1 [-0.1, +0.3]" -> ("+0.1", "-0.1 to +0.3")."""
    difference, _, interval = cell.partition(" [")
    return difference, interval.replace("]", "").replace(", ", " to ")


def _interval_chart(results: dict[str, Any]) -> str:
    metric = headline_metric(results)
    rows = [
        (method, scores[metric]["mean"], scores[metric]["low"], scores[metric]["high"])
        for method, scores in results["methods"].items()
    ]
    spoken = "; ".join(f"{name} {mean:.4f} ({low:.4f} to {high:.4f})" for name, mean, low, high in rows)
    return interval_chart("methods", f"{label(metric)} of each method: {spoken}", rows, results["config"]["method"])


def _profile_rows(results: dict[str, Any]) -> list[dict[str, str]]:
    """Length, overlong rate and copied share of each policy's profiles, greedy and sampled."""
    return [
        {
            "policy": name,
            "decoding": decoding,
            "tokens": f"{numbers['tokens']:.1f}",
            "overlong": f"{numbers['overlong_rate']:.1%}",
            "copied": f"{numbers['copied_share']:.1%}",
        }
        for decoding, key in (("greedy", "profiles"), ("sampled", "sampled_profiles"))
        for name, numbers in results[key].items()
    ]


def _facts(
    config: RunConfig, results: dict[str, Any], dataset: Dataset, metrics: Sequence[dict[str, Any]]
) -> list[tuple[str, str]]:
    """The facts beside the title, as (name, value)."""
    counts = {split: dataset.sessions.splits.count(split) for split in ("train", "validation", "test")}
    known = train_sessions_in(config.data.train_share, counts["train"])
    used = f"{number:,} of " if (number := min(known, config.data.max_sessions or known)) < counts["train"] else ""
    training = step_seconds(metrics)
    return [
        ("catalog", f"{len(dataset.catalog):,} items"),
        ("sessions", used + ", ".join(f"{count:,} {split}" for split, count in counts.items())),
        ("policy", config.policy.model),
        ("embedder", config.embedder.model),
        ("seed", str(config.seed)),
        ("time", f"{_duration(training)} in training steps, {_duration(results['seconds'])} in evaluation"),
    ]


@dataclass(frozen=True)
class Chart:
    """A learning curve with its caption; `svg` is empty when nothing was measured."""

    title: str
    caption: str
    svg: Markup
    has_dots: bool = False


def _charts(config: RunConfig, metrics: Sequence[dict[str, Any]]) -> list[Chart]:
    validation = f"validation/ndcg@{config.evaluation.k}"
    reward = "NDCG over the whole catalog" if config.rlso.reward == "ndcg" else config.rlso.reward
    return [
        *_history_curve(config, metrics),
        _curve(
            metrics, "contrastive", "contrastive/loss", "Contrastive loss", "InfoNCE over the global batch (Eq. 7)."
        ),
        _curve(metrics, "rlso", "rlso/loss", "Policy loss", _caption_of_loss(config)),
        _curve(
            metrics,
            "rlso",
            "reward/mean",
            "Reward",
            f"{reward}, mean over sampled training profiles, before the KL penalty.",
            dots=None if config.rlso.reward in LOWER_IS_BETTER else f"validation/{config.rlso.reward}",
        ),
        _curve(
            metrics,
            "validation",
            validation,
            f"Validation {label(validation.removeprefix('validation/'))}",
            "One greedy profile a session, scored by the embedder as it was then; over all steps of the run.",
        ),
        *(
            _curve(
                metrics,
                "validation",
                f"validation/{metric}",
                f"Validation {label(metric)}",
                f"The same profiles. {meaning}",
            )
            for metric, meaning in (
                (LOG_LIKELIHOOD, f"The target's log-probability at temperature {LIKELIHOOD_TEMPERATURE:g}, in nats."),
                (LOG_RANK, "The logarithm of the target's rank: lower is better."),
            )
        ),
        _curve(
            metrics,
            "rlso",
            "kl/reference",
            "KL to the reference policy",
            "Log-probability under the policy minus under the reference, in nats a profile. Measured only with "
            "rlso.kl_penalty > 0, since nothing else needs a pass of the reference over every profile.",
        ),
        _curve(
            metrics,
            "rlso",
            "profile/copied_share",
            "Share of words copied",
            "In runs of three or more from the titles of the history; sampled profiles.",
            dots="validation/copied_share",
        ),
        *(_curve(metrics, "rlso", f"profile/{name}", title, caption) for name, title, caption in _LOOKS),
    ]


_LOOKS = (
    ("overlong_rate", "Profiles without an end", "The share that met the token limit; sampled profiles."),
    ("distinct_share", "Distinct profiles", "The share of a session's sampled profiles that differ from one another."),
    ("repetition", "Repetition", "The share of runs of three words that a sampled profile writes again."),
    ("entropy", "Entropy of the policy", "-ln p of a sampled token, in nats: near 0 it tries nothing new."),
)
"""What shows that a policy collapses: name, title and caption of each curve."""


def _caption_of_loss(config: RunConfig) -> str:
    caption = f"The objective {config.rlso.objective}."
    if config.rlso.epochs == 1:
        caption += (
            " With rlso.epochs = 1 each step has a rollout of its own, over which no log-ratio has moved yet: look at "
            "the reward, since this loss says nothing of what is learned."
        )
    return caption


def _history_curve(config: RunConfig, metrics: Sequence[dict[str, Any]]) -> list[Chart]:
    """The loss of the steps on histories, for runs that have them."""
    if not config.trains_on_histories:
        return []
    caption = "InfoNCE (Eq. 7) with titles of histories in place of profiles, before the first iteration."
    return [_curve(metrics, "history", "contrastive/loss", "Contrastive loss on histories", caption)]


def _curve(
    metrics: Sequence[dict[str, Any]], phase: str, key: str, title: str, caption: str, *, dots: str | None = None
) -> Chart:
    """`key` over the optimizer steps of its own phase; dots are the greedy validation after a phase.

    A dot stands at the number of the phase's steps before it. As the main line, validations stand at the run's steps.
    """
    own = [line for line in metrics if line["phase"] == phase]
    place = {line["step"]: i + 1 for i, line in enumerate(own)} if phase != "validation" else {}
    steps = [place.get(line["step"], line["step"]) for line in own if key in line]
    values = [line[key] for line in own if key in line]
    if not values:
        return Chart(title, f"Not measured in this run. {caption}", Markup())
    validations = [(line["step"], line[dots]) for line in metrics if line["phase"] == "validation" and dots in line]
    dot_series = Series(
        [sum(line["step"] <= step for line in own) for step, _ in validations], [value for _, value in validations]
    )
    borders = [i + 0.5 for i, line in enumerate(own) if i and line["iteration"] != own[i - 1]["iteration"]]
    description = f"{title}: from {values[0]:.4g} at step {steps[0]} to {values[-1]:.4g} at step {steps[-1]}."
    svg = line_chart(
        f"{phase}-{key}".replace("/", "-").replace("@", "-"),
        description,
        Series(steps, values),
        dot_series,
        borders=borders if phase != "validation" else (),
    )
    return Chart(title, caption, Markup(svg), bool(dot_series.steps))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _p_in_words(p_value: float) -> str:
    return p_text(p_value) if p_value < 0.001 else f"= {p_text(p_value)}"
