"""What `langptune describe` has found, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langptune_rs.describing.judging import INITIAL, METADATA, REVIEWS, TRAINED, beside_metadata
from langptune_rs.evaluation.summary import LOG_LIKELIHOOD, LOG_RANK, LOWER_IS_BETTER, SIGNIFICANT, mean_text
from langptune_rs.evaluation.tables import markdown_table
from langptune_rs.experiments.report.tables import ARROW, label, p_text

_QUESTIONS = (
    (TRAINED, INITIAL, "Training by the reward"),
    (TRAINED, METADATA, "The trained policy's descriptions in place of the metadata"),
    (TRAINED, REVIEWS, "The trained policy's descriptions in place of the reviews"),
    (beside_metadata(TRAINED), METADATA, "The trained policy's descriptions behind the metadata"),
)


def markdown(results: Mapping[str, Any]) -> str:
    """The verdicts, all tables and the examples."""
    return (
        "\n\n".join(
            [
                facts(results),
                "\n".join(f"- {verdict}" for verdict in verdicts(results)),
                catalogs_table(results),
                f"Mean with its 95% bootstrap interval. {ARROW}. The embedder does not read the end of what is cut.",
                comparisons_table(results),
                "Differences with their 95% bootstrap intervals"
                + (", the standard deviation over seeds" if len(results["seeds"]) > 1 else "")
                + ", and p of the paired permutation test after Holm's correction over all rows. Sessions of one user "
                "are drawn and swapped together.",
                descriptions_table(results),
                *(_example(example) for example in results["examples"]),
            ]
        )
        + "\n"
    )


def facts(results: Mapping[str, Any]) -> str:
    """What was described, by whose reviews, and who ranked."""
    num_without = results["num_items"] - results["num_described"]
    not_described = results["num_sessions"] - results["num_sessions_described"]
    return (
        f"{results['num_described']:,} of {results['num_items']:,} items have a review in a train session; the policy "
        f"learned from the {results['num_learned_from']:,} of them that a user chose there. Items without a review, "
        f"which keep their metadata: {num_without:,}. Sessions that end with one of these: {not_described:,}. "
        f"{results['num_sessions']:,} of {results['split_size']:,} {results['split']} sessions rank the catalog, "
        f"those of {results['num_users']:,} users, by {results['users']}. "
        f"Seeds: {', '.join(map(str, results['seeds']))}."
    )


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each question: what has improved, what has suffered, and what cannot be told from chance."""
    return [f"{subject}: {_verdict(results, method, other)}." for method, other, subject in _QUESTIONS]


def _verdict(results: Mapping[str, Any], method: str, other: str) -> str:
    found: dict[str, list[str]] = {"better": [], "worse": [], "not told from chance": []}
    for row in _shown_rows(results, method, other):
        text = f"{label(row['metric'])} {row['difference']:+.4f} (p {p_text(row['p_holm'])})"
        is_better = (row["difference"] > 0) != (row["metric"] in LOWER_IS_BETTER)
        told = row["p_holm"] < SIGNIFICANT
        found["not told from chance" if not told else "better" if is_better else "worse"].append(text)
    return "; ".join(f"{name}: {', '.join(texts)}" for name, texts in found.items() if texts)


def _metrics(results: Mapping[str, Any]) -> list[str]:
    return [f"ndcg@{results['k']}", LOG_LIKELIHOOD, LOG_RANK]


def _shown_rows(results: Mapping[str, Any], method: str, other: str) -> Iterator[Mapping[str, Any]]:
    for metric in _metrics(results):
        for row in results["comparisons"]:
            if (row["method"], row["other"], row["metric"]) == (method, other, metric):
                yield row


def catalogs_table(results: Mapping[str, Any]) -> str:
    """A row for each way of writing the items."""
    metrics = _metrics(results)
    rows = [
        [name, *(mean_text(own["metrics"][metric]) for metric in metrics), f"{own['cut_share']:.0%}"]
        for name, own in results["catalogs"].items()
    ]
    return markdown_table(["items are", *map(label, metrics), "cut"], rows)


def comparisons_table(results: Mapping[str, Any]) -> str:
    """A row for each pair of catalogs."""
    metrics = _metrics(results)
    pairs = dict.fromkeys((row["method"], row["other"]) for row in results["comparisons"])
    rows = [[*pair, *(cell for row in _shown_rows(results, *pair) for cell in _cells(row))] for pair in pairs]
    header = ["items are", "compared with", *(cell for metric in metrics for cell in (label(metric), "p"))]
    return markdown_table(header, rows)


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = row["interval"]
    spread = "" if row["seed_sd"] is None else f", sd {row['seed_sd']:.4f}"
    return [f"{row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]{spread}", p_text(row["p_holm"])]


def descriptions_table(results: Mapping[str, Any]) -> str:
    """A row for what each policy wrote."""
    written = results["descriptions"]
    policies = {INITIAL: written[INITIAL], **{f"{TRAINED}, seed {s}": own for s, own in written[TRAINED].items()}}
    rows = [
        [
            name,
            f"{own['tokens']:.0f}",
            *(f"{own[share]:.1%}" for share in ("overlong_rate", "copied_share", "repetition", "distinct_share")),
        ]
        for name, own in policies.items()
    ]
    return markdown_table(["written by", "tokens", "do not end", "copied from reviews", "repeated", "distinct"], rows)


def _example(example: Mapping[str, Any]) -> str:
    shown: Sequence[tuple[str, str, str]] = (
        (METADATA, METADATA, example["metadata"]),
        (REVIEWS, "", " / ".join(example["reviews"])),
        (INITIAL, INITIAL, example["initial"]),
        (TRAINED, TRAINED, example["trained"]),
    )
    lines = [f"**{example['title']}** ({example['item_id']})", ""]
    for name, ranked, text in shown:
        ranks = example["ranks"].get(ranked, [])
        of_users = f" (ranks for those who chose it: {', '.join(map(str, ranks))})" if ranks else ""
        lines.append(f"- {name}{of_users}: {' '.join(text.split())}")
    return "\n".join(lines)
