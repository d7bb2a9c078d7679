"""What the profiles of a run rest on: five measures beside the scores of every method that ranks by profiles.

- scrubbed: the ranking by profiles without the words of the target's own title. A score that falls with them was made
  by naming the target.
- copied: the share of a profile's words that lie in runs of three or more words of titles of the history.
- swapped: the ranking by the profile of another user. It must do worse, or profiles say nothing about the user.
- memorised: the ranking by one profile that the policy wrote without any history. It shows what a policy knows of the
  data set, and what an embedder does for every user alike.
- titles: the ranking by the titles of the history in place of a profile. What it has more is what the profile lost.

Each is computed from the profiles that the evaluation of the run has written, and ranked by the embedder that the
method reads with. Methods without profiles have none of them: EMB-0 reads the history's text itself, and its model
lives in the process of its task.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from langptune_rs.baselines.langptune import LangPTune
from langptune_rs.baselines.registry import find_method
from langptune_rs.data import Dataset, Sessions
from langptune_rs.data.store.tables import read_whole_parquet, write_parquet
from langptune_rs.errors import DataError, InputError, ModelError, RunError
from langptune_rs.evaluation.significance import bootstrap_intervals, paired_permutation_test
from langptune_rs.evaluation.summary import score_sessions
from langptune_rs.experiments.compare.rows import Compared, Guards
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.seeds import FREE_SECTIONS
from langptune_rs.files import file_hash, write_atomically
from langptune_rs.progress import progress
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.runs.results import BASELINE, per_user_path, profiles_path, read_profiles, unlike_results
from langptune_rs.runs.trained import MODELS, TrainedRun
from langptune_rs.seeds import generator

FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the this that these those some any all both each every either neither no such other another same i me my
        mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
        herself it its itself they them their theirs themselves who whom whose which what and or but nor so yet if
        because as while when where why how than then though although unless until since whether of in on at to from
        for by with without within into onto over under above below up down out off about after before between among
        through during against upon across along around behind near toward towards is am are was were be been being do
        does did have has had can could may might must shall should will would not only too very just also there few
        many more most much
        """,
    )
)
"""Words that any English text may hold: articles, pronouns, conjunctions, prepositions, auxiliaries, quantities."""
_WORD = re.compile(r"([^\W_]+(?:['’][^\W_]+)*)([ \t]?)")
"""A word, with apostrophes inside it, and the space behind it. An underscore is Markdown's, and no part of a word."""
_YEAR = re.compile(r"[(\[]\s*(?:1[89]|20)\d\d(?:\s*[-–]\s*(?:\d{4})?)?\s*[)\]]")
"""The years in brackets that catalogs of films put behind a title: (1995), [1995–1998]."""

FOLDER = "guards"
"""Where an experiment keeps what was measured, within its own folder."""
WAY_OUT = "Or compare without it: --no-guards (in Python: guards=False)."
"""What to do where a run's models are gone, at the end of an error."""
DEFINITION = 2
"""Counts up when a measure changes its meaning, so that what is kept of an earlier one is computed again."""
TEXTS_PER_STEP = 1024
"""Profiles embedded between two steps of the progress."""
Texts = Sequence[Sequence[str]]
"""S texts for each of N sessions."""
_COLUMNS = pl.Schema(
    {
        "decoding": pl.String(),
        "session_id": pl.Int64(),
        **dict.fromkeys(("scrubbed", "changed", "copied", "swapped", "memorised", "titles"), pl.Float64()),
        "without_history": pl.String(),
    }
)
"""A kept file: one row for each decoding and session. "swapped" is null where no swap is possible."""


def title_words(title: str) -> frozenset[str]:
    """The words by which a text names a title, in lower case and without a possessive 's.

    Not among them: `FUNCTION_WORDS` and contractions such as "don't", words of one character, and a year in brackets,
    which says when something appeared. A number of two or more digits that stands elsewhere is a word of the title. A
    title of function words alone, such as "It", has none.

    >>> sorted(title_words("The Schindler's List 2, 1984 (1995)"))
    ['1984', 'list', 'schindler']
    """
    keys = {_key(match[1]) for match in _WORD.finditer(_YEAR.sub(" ", title))}
    return frozenset(key for key in keys if len(key) > 1 and key not in FUNCTION_WORDS and not _is_contraction(key))


def scrub(text: str, words: Set[str]) -> str:
    """`text` without the `words` of `title_words`, wherever they stand as whole words, in upper or lower case.

    Where nothing is removed the text is returned as it is. A word goes with its possessive 's and one space beside it.

    >>> scrub("Likes Heat, heated talk and HEAT's music.", {"heat"})
    "Likes , heated talk and music."
    """

    def kept(match: re.Match[str]) -> str:
        if _key(match[1]) not in words:
            return match[0]
        starts = match.start() == 0 or match.string[match.start() - 1].isspace()
        return "" if starts else match[2]

    return _WORD.sub(kept, text)


def _key(word: str) -> str:
    """What is equal for two spellings of a word: in lower case, with a straight apostrophe, without a possessive 's."""
    return word.casefold().replace("’", "'").removesuffix("'s")


def _is_contraction(key: str) -> bool:
    return key.endswith(("n't", "'ve", "'re", "'ll", "'d", "'m"))


def derangement(users: Sequence[Hashable], *seed: int | str) -> NDArray[np.int64]:
    """A permutation of the sessions that gives none to its own user: int64 (n,), `users[d[i]] != users[i]` for every i.

    The users stand in a circle in an order drawn from the `seed`, each with its sessions side by side, and every
    session takes the one that is as far ahead as the busiest user has sessions.

    Raises `InputError` where one user has more than half of the sessions: then there is no such permutation.
    """
    numbers = {user: number for number, user in enumerate(dict.fromkeys(users))}
    own = np.array([numbers[user] for user in users], dtype=np.int64)
    most = int(np.bincount(own).max()) if len(own) else 0
    if 2 * most > len(own):
        raise InputError(
            f"one user has {most} of the {len(own)} sessions, so that another user's profile cannot be given to each: "
            "take the sessions of more users"
        )
    random = generator(*seed)
    circle = np.lexsort((random.permutation(len(own)), random.permutation(len(numbers))[own]))
    found = np.empty(len(own), dtype=np.int64)
    found[circle] = np.roll(circle, -most)
    return found


def guard_rows(
    rows: Sequence[Compared], sessions: pl.DataFrame, ranked: Ranked, dataset: Dataset, folder: Path
) -> list[Compared]:
    """The rows of `rows_of_runs` with their guards, each averaged over the row's runs for every session.

    Those of a run and method are kept in `folder`, in a file whose name is a hash of all that decides them, and
    computed where there is no such file: again, when the run's results have changed. What is finished is kept.

    Args:
        rows: methods that write profiles, whose "runs" are in their settings.
        sessions: session_id of the sessions that are compared on.
        dataset: the data set that the runs were trained on.

    Raises:
        RunError: when a run's profiles or models are not there or do not fit, or a kept file is damaged.
    """
    methods: dict[Path, list[str]] = {}
    for row in rows:
        for run in _runs(row):
            if row.method not in methods.setdefault(run, []):
                methods[run].append(row.method)
    kept: dict[tuple[Path, str], pl.DataFrame] = {}
    for number, (run, names) in enumerate(methods.items()):
        print(f"What the profiles of {run} rest on ({number + 1}/{len(methods)})", file=sys.stderr, flush=True)
        try:
            files = guards_of_run(run, names, ranked, dataset, folder)
        except (RunError, ModelError, DataError) as error:
            raise RunError(f"What the profiles of {run} rest on cannot be computed: {error} {WAY_OUT}") from error
        kept |= {(run, name): _read(file) for name, file in files.items()}
    ids = sessions["session_id"].to_list()
    return [replace(row, guards=_of_row(row, kept, ids, ranked.split)) for row in rows]


def guards_of_run(
    folder: Path, names: Iterable[str], ranked: Ranked, dataset: Dataset, output: Path
) -> dict[str, Path]:
    """The file of each of a run's methods in `output`, computed where it is missing. Raises as `guard_rows`.

    Only one model is in memory at a time; an embedder embeds the catalog once for all methods that read with it.
    """
    run = TrainedRun.open(folder, ())
    files = {name: output / f"{name.lower()}-{identity_of(run, name, ranked)}.parquet" for name in names}
    missing = [name for name, file in files.items() if not file.is_file()]
    if not missing:
        return files
    methods = {name: method_of_run(name) for name in missing}
    uses = {"policy": any(m.writes_with_trained for m in methods.values())}
    uses["embedder"] = any(m.reads_with_trained for m in methods.values())
    run = TrainedRun.open(folder, [model for model in MODELS if uses[model]])
    run.dataset = dataset
    policies = dict.fromkeys(method.writes_with_trained for method in methods.values())
    written = {trained: profile_without_history(run, trained=trained) for trained in policies}
    profiles = read_profiles(folder, ranked.split)
    recommender: tuple[bool, Recommender] | None = None
    for name in sorted(missing, key=lambda name: methods[name].reads_with_trained):
        trained = methods[name].reads_with_trained
        if recommender is None or recommender[0] != trained:
            recommender = None  # its memory is free before the other one is loaded
            recommender = trained, run.recommender(trained=trained)
        own = profiles.filter(pl.col("policy") == (name if name in profiles["policy"] else BASELINE))
        without = written[methods[name].writes_with_trained]
        table = _guards(run, name, own, recommender[1], without, ranked)
        write_atomically(files[name], partial(write_parquet, table))
    return files


def profile_without_history(run: TrainedRun, *, trained: bool) -> str:
    """The greedy profile that the trained or the initial policy of a run writes for no history at all.

    The prompt is that of every session, its instruction and its closing, with nothing between them.
    """
    writer = run.writer(trained=trained)
    return writer.write([writer.history_prompt([], [], [])], greedy=True).texts[0]


def _guards(
    run: TrainedRun, name: str, profiles: pl.DataFrame, recommender: Recommender, without_history: str, ranked: Ranked
) -> pl.DataFrame:
    """The guards of one method, with the columns `_COLUMNS`, from the `profiles` of its policy."""
    sets: list[tuple[str, Sessions, Texts, NDArray[np.float64]]] = []
    for (decoding,), written in profiles.group_by("decoding", maintain_order=True):
        sessions, num_samples = _sessions_of(written, run, ranked)
        own = written["text"].to_list()
        texts_NS: Texts = [own[start : start + num_samples] for start in range(0, len(own), num_samples)]
        sets.append((str(decoding), sessions, texts_NS, written["copied_share"].to_numpy().reshape(-1, num_samples)))
    if not sets:
        raise unlike_results(profiles_path(run.folder, ranked.split), f"has no profiles of {name}", run.folder)

    titles = run.dataset.catalog.titles
    of_histories = [[[run.dataset.history_titles(s, i)] for i in range(len(s))] for _, s, _, _ in sets]
    scrubbed = [_scrubbed(texts_NS, [titles[item] for item in sessions.targets]) for _, sessions, texts_NS, _ in sets]
    all_NS = [
        *(row for _, _, texts_NS, _ in sets for row in texts_NS),
        *(row for texts_NS in (*scrubbed, *of_histories) for row in texts_NS),
    ]
    embedded = _Embedded(recommender, [without_history, *chain.from_iterable(all_NS)], f"{name}: profiles")

    frames = []
    for (decoding, sessions, texts_NS, copied_NS), scrubbed_NS, titles_N1 in zip(
        sets, scrubbed, of_histories, strict=True
    ):
        ndcg = partial(embedded.ndcg, sessions=sessions, k=ranked.k)
        try:
            donors = derangement(sessions.user_ids.to_list(), run.config.seed, "history-swap")
        except InputError:
            swapped = None
        else:
            swapped = ndcg([texts_NS[donor] for donor in donors])
        changed_NS = [
            [ours != left for ours, left in zip(*rows, strict=True)] for rows in zip(texts_NS, scrubbed_NS, strict=True)
        ]
        columns = {
            "decoding": decoding,
            "session_id": sessions.session_ids,
            "scrubbed": ndcg(scrubbed_NS),
            "changed": np.mean(changed_NS, axis=1),
            "copied": copied_NS.mean(axis=1),
            "swapped": swapped,
            "memorised": ndcg([[without_history]] * len(sessions)),
            "titles": ndcg(titles_N1),
            "without_history": without_history,
        }
        frames.append(pl.DataFrame(columns).cast(_COLUMNS))
    return pl.concat(frames)


def _sessions_of(written: pl.DataFrame, run: TrainedRun, ranked: Ranked) -> tuple[Sessions, int]:
    """The sessions that profiles of one decoding are of, in their order, and how many profiles each has."""
    ids = written["session_id"].to_numpy()
    sessions = run.dataset.sessions.select(ranked.split)
    own = list(dict.fromkeys(ids.tolist()))
    num_samples = len(ids) // len(own)
    places = {session: place for place, session in enumerate(sessions.session_ids.tolist())}
    if not np.array_equal(ids, np.repeat(own, num_samples)) or not places.keys() >= set(own):
        path = profiles_path(run.folder, ranked.split)
        raise unlike_results(path, "has profiles of other sessions than the data set", run.folder, ranked.split)
    return sessions.take([places[session] for session in own]), num_samples


def _scrubbed(texts_NS: Texts, titles: Sequence[str]) -> Texts:
    """The profiles of N sessions without the words of their targets' titles."""
    words = map(title_words, titles)
    return [[scrub(text, of_title) for text in texts] for texts, of_title in zip(texts_NS, words, strict=True)]


class _Embedded:
    """Texts with their embeddings. Equal texts are embedded once, so that they score the same to the bit."""

    def __init__(self, recommender: Recommender, texts: Iterable[str], description: str):
        distinct = list(dict.fromkeys(texts))
        self._index = recommender.index
        self._numbers = {text: number for number, text in enumerate(distinct)}
        parts = []
        with progress(len(distinct), description) as advance:
            for start in range(0, len(distinct), TEXTS_PER_STEP):
                parts.append(recommender.embedder.encode_profiles(distinct[start : start + TEXTS_PER_STEP]))
                advance(len(parts[-1]))
        self._embeddings = np.concatenate(parts)

    def ndcg(self, texts_NS: Texts, sessions: Sessions, k: int) -> NDArray[np.float64]:
        """NDCG@k of each session, (N,): its target ranked by each of S texts among all items outside its history."""
        num_texts = len(texts_NS[0])
        users = self._embeddings[[self._numbers[text] for text in chain.from_iterable(texts_NS)]]
        targets, histories = (np.repeat(x, num_texts, axis=0) for x in (sessions.targets, sessions.histories))
        ranks = self._index.rank(users, targets, exclude=histories)
        assert isinstance(ranks, np.ndarray)  # one target for each text
        return score_sessions(ranks.reshape(-1, num_texts), None, k).per_user[f"ndcg@{k}"]


def identity_of(run: TrainedRun, name: str, ranked: Ranked) -> str:
    """A hash of all that decides the guards of a method of a run.

    Raises `RunError` where the run lacks results.
    """
    paths = per_user_path(run.folder, ranked.split), profiles_path(run.folder, ranked.split)
    for path in paths:
        if not path.is_file():
            raise unlike_results(path, "is missing", run.folder, ranked.split)
    decides: Mapping[str, Any] = {
        "definition": DEFINITION,
        "method": name,
        "config": run.config.model_dump(mode="json", exclude={"data", *FREE_SECTIONS}),
        "results": [file_hash(path) for path in paths],
        "data": ranked.content,
        "split": ranked.split,
        "k": ranked.k,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _read(file: Path) -> pl.DataFrame:
    """A kept file. Raises `RunError` for a damaged one."""
    try:
        table = read_whole_parquet(file)
        reason = "" if table.schema == _COLUMNS else "Its columns are others."
    except DataError as error:
        reason = str(error)
    if reason:
        raise RunError(f"{file} is damaged. {reason} Remove that file, and it is made again.")
    return table


def _of_row(
    row: Compared, kept: Mapping[tuple[Path, str], pl.DataFrame], session_ids: Sequence[int], split: str
) -> Guards:
    """The guards of a row, sessions as in `session_ids`."""
    tables = []
    for run in _runs(row):
        table = kept[run, row.method].filter(pl.col("decoding") == row.decoding)
        places = {session: place for place, session in enumerate(table["session_id"].to_list())}
        if not places.keys() >= set(session_ids):
            what = f"lacks {row.decoding} profiles of {row.method} that its scores are of"
            raise unlike_results(profiles_path(run, split), what, run, split)
        tables.append(table[[places[session] for session in session_ids]])

    def mean(column: str) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.mean([table[column].to_numpy() for table in tables], axis=0)
        return found

    has_swap = not any(table["swapped"].null_count() for table in tables)
    return Guards(
        scrubbed=mean("scrubbed"),
        changed=mean("changed"),
        copied=mean("copied"),
        swapped=mean("swapped") if has_swap else None,
        memorised=mean("memorised"),
        titles=mean("titles"),
        without_history=[table["without_history"][0] for table in tables],
    )


def summary(own: NDArray[np.float64], guards: Guards, users: ArrayLike) -> dict[str, Any]:
    """Guards as comparison.json has them: means, 95% intervals, and paired differences to the method itself.

    "difference" of "swapped" and "titles" is the method's `own` score less that of the ranking, (n,), with its 95%
    interval; "p" is that of the paired permutation test.
    """
    rankings = {"scrubbed": guards.scrubbed, "memorised": guards.memorised, "titles": guards.titles}
    if guards.swapped is not None:
        rankings["swapped"] = guards.swapped
    intervals = bootstrap_intervals(rankings, clusters=users)
    means: dict[str, dict[str, Any]] = {
        name: {"mean": float(scores.mean()), "low": intervals[name][0], "high": intervals[name][1]}
        for name, scores in rankings.items()
    }
    for name in means.keys() & {"swapped", "titles"}:
        less = own - rankings[name]
        low, high = bootstrap_intervals({"difference": less}, clusters=users)["difference"]
        p = paired_permutation_test(own, rankings[name], clusters=users)
        means[name] |= {"difference": float(less.mean()), "interval": [low, high], "p": p}
    return {
        "scrubbed": means["scrubbed"],
        "changed_share": float(guards.changed.mean()),
        "copied_share": float(guards.copied.mean()),
        "swapped": means.get("swapped"),
        "memorised": means["memorised"],
        "titles": means["titles"],
        "without_history": list(guards.without_history),
    }


def _runs(row: Compared) -> list[Path]:
    return [Path(run) for run in row.settings["runs"]]


def method_of_run(name: str) -> type[LangPTune]:
    """The method of that name, one of those that runs train or begin with."""
    method = find_method(name)
    assert issubclass(method, LangPTune), "methods of runs write profiles"
    return method
