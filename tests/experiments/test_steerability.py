"""Steering measured on embedders whose readings are planted, and on the tiny run through the command."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from tests.experiments.test_report import Page
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.data.store.catalog import Catalog
from langptune_rs.errors import InputError, ModelError, RunError
from langptune_rs.evaluation.metrics import from_ranks
from langptune_rs.experiments.kept import Kept
from langptune_rs.experiments.report.report import write_report
from langptune_rs.experiments.steerability import steerability as module
from langptune_rs.experiments.steerability.catalogs import TaggedCatalog
from langptune_rs.experiments.steerability.controls import ASIDES, SENTENCES, filler_aside, filler_sentences, num_words
from langptune_rs.experiments.steerability.edits import APPENDED, INSERTED, clauses_of, edits_of, rewritten
from langptune_rs.experiments.steerability.faithfulness import measure_sessions
from langptune_rs.experiments.steerability.figures import Values, comparisons, edit_figures, of_edits
from langptune_rs.experiments.steerability.judge import Judge, find_judge
from langptune_rs.experiments.steerability.measuring import ANOTHER_USER, Case, measure_edits
from langptune_rs.experiments.steerability.page import markdown
from langptune_rs.experiments.steerability.protocol import AS_IS, SCRUBBED, Protocol
from langptune_rs.experiments.steerability.readability import choices, recognised, repeated_sentences
from langptune_rs.experiments.steerability.tags import all_tags, draw_tags, named_tags, unrelated
from langptune_rs.experiments.steerability.variants import variants_of
from langptune_rs.models.embedder import Embedder
from langptune_rs.recommending.edits import Profile
from langptune_rs.recommending.sentences import without
from langptune_rs.rollout.words import words_of
from langptune_rs.seeds import generator

KINDS = ("dragons", "trains", "kitchens")
NUM_ITEMS = 90
K = 5


class Reader:
    """An embedder that reads the words of `KINDS` in items, and in profiles what the person wants of them."""

    def __init__(self, power: float):
        self.power = power
        self.dim = len(KINDS) + 6

    def encode_items(self, texts):
        return self._unit([[1.0 * (kind in text) for kind in KINDS] + self._own(text) for text in texts])

    def encode_profiles(self, texts):
        return self._unit([[self.power * self._wanted(text, kind) for kind in KINDS] + [1.0] * 6 for text in texts])

    def unread_profile(self, text):
        return ""

    @staticmethod
    def _wanted(text, kind):
        """How far a profile wants a kind: by the wishes that it holds, and a little where it only names it."""
        for direction, sign in (("increase", 1), ("decrease", -1)):
            for strength in (3, 2, 1):
                for phrases in (APPENDED, INSERTED):
                    if phrases[direction][strength].format(tag=kind) in text:
                        return sign * strength
        return 0.5 * (kind in text)

    @staticmethod
    def _own(text):
        """Six numbers of an item itself, by the number in its title."""
        return generator("item", int(text.split()[1])).normal(0, 0.5, 6).tolist()

    @staticmethod
    def _unit(rows):
        vectors = np.array(rows, dtype=np.float64)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def kinds_of(item):
    """Which kinds an item is of: having one says nothing of having another."""
    return [kind for kind, every in zip(KINDS, (2, 3, 5), strict=True) if item % every == 0]


@pytest.fixture(scope="module")
def items():
    return pl.DataFrame(
        {
            "title": [f"Story {item}" for item in range(NUM_ITEMS)],
            "description": [None] * NUM_ITEMS,
            "categories": [kinds_of(item) for item in range(NUM_ITEMS)],
        },
        schema={"title": pl.String, "description": pl.String, "categories": pl.List(pl.String)},
    )


@pytest.fixture(scope="module")
def catalog():
    texts = [f"Story {item} {' '.join(kinds_of(item))}" for item in range(NUM_ITEMS)]
    return Catalog([f"i{item}" for item in range(NUM_ITEMS)], texts, texts, texts)


@pytest.fixture(scope="module")
def tags(items):
    return named_tags(items, KINDS, 5)


def word_judge(texts, other):
    """The number of words in common."""
    return np.array([len(set(words_of(text)) & set(words_of(other))) for text in texts], dtype=np.float64)


CASES = [
    Case(
        session_id=number,
        user_id=f"u{number}",
        history=np.array([number, 40 + number, 60]),
        target=10 + number,
        text="The user likes old dragons, slow trains and new kitchens.",
        other="The user likes nothing, and says so.",
    )
    for number in range(3)
]


def measured(power, catalog, tags, folder):
    shown = TaggedCatalog(Reader(power), catalog, tags, Kept(folder), {"power": power})
    return measure_edits(CASES, shown, tags, word_judge, k=K, seed=0)


def test_a_word_that_moves_the_tagged_items_is_found(catalog, tags, tmp_path):
    """And nothing is found where the words are gone from the items."""
    rows = measured(0.5, catalog, tags, tmp_path)
    own = rows.filter(pl.col("texts") == AS_IS, ~pl.col("kind").is_in([ANOTHER_USER, "delete"]))
    assert own.filter(pl.col("strength") == 3)["auc"].min() > 0.05
    assert own.filter(pl.col("kind") != "request")["auc"].min() > 0
    more = edit_figures(own.filter(pl.col("direction") == "increase"))
    assert more["right"].numbers.tolist() == [1.0] * 3
    assert more["monotonicity"].numbers.min() > 0.9
    assert more["specificity"].numbers.max() < 0.5
    assert rows.filter(pl.col("texts") == AS_IS, pl.col("kind") == "delete")["auc"].min() > 0
    gone = rows.filter(pl.col("texts") == SCRUBBED, pl.col("kind").is_in(["append", "negate", "rewrite"]))
    for column in ("auc", "auc_raw", "pool", "exposure"):
        assert gone[column].abs().max() < 1e-3  # items of one score change places where it is rounded


def test_an_embedder_that_reads_no_wish_shows_none(catalog, tags, tmp_path):
    rows = measured(0.0, catalog, tags, tmp_path)
    for column in ("auc", "auc_raw", "auc_control", "pool", "exposure", "moved", "moved_unrelated"):
        assert set(rows[column].drop_nulls()) == {0.0}
    assert set(rows["ndcg"].drop_nulls()) <= {0.0}
    found = edit_figures(rows.filter(pl.col("kind") == "append", pl.col("texts") == AS_IS))
    nothing = {"right": 0.5, "specificity": 1.0, "monotonicity": 0.0, "auc": 0.0}
    assert {figure: set(found[figure].numbers) for figure in nothing} == {f: {value} for f, value in nothing.items()}


def test_the_numbers_are_those_of_a_brute_force(catalog, tags, tmp_path):
    """Scores in float64 over all items outside the history, AUC by scikit-learn, of each edit and its control."""
    rows = measured(0.5, catalog, tags, tmp_path)
    reader, case = Reader(0.5), CASES[1]
    embedded = reader.encode_items(catalog.texts.to_list()).astype(np.float64)
    kept = np.setdiff1d(np.arange(NUM_ITEMS), case.history)

    def scores(profile):
        vector = reader.encode_profiles([profile.text])[0].astype(np.float64)
        for text, weight in profile.requests.items():
            vector = vector + weight * reader.encode_profiles([text])[0].astype(np.float64)
        return (embedded @ vector)[kept]

    def seen(profile, tag):
        values = scores(profile)
        order = kept[np.argsort(-values, kind="stable")]
        rank = int(np.flatnonzero(order == case.target)[0]) + 1 if case.target in kept else 1
        return roc_auc_score(tag.has[kept], values), tag.has[order[:K]].mean(), from_ranks([rank], f"ndcg@{K}")[0]

    own = rows.filter(pl.col("session_id") == case.session_id, pl.col("texts") == AS_IS)
    for edit in edits_of(case.text, tags, word_judge, 0, "steerability", case.session_id):
        tag, sign = tags[edit.tag], 1 if edit.direction == "increase" else -1
        row = own.row(
            by_predicate=(pl.col("tag") == tag.name)
            & (pl.col("kind") == edit.kind)
            & (pl.col("direction") == edit.direction)
            & (pl.col("strength") == edit.strength),
            named=True,
        )
        after, control, before = (seen(p, tag) for p in (edit.edited, edit.control, Profile(case.text)))
        assert row["auc"] == pytest.approx(sign * (after[0] - control[0]), abs=1e-9)
        assert row["auc_raw"] == pytest.approx(sign * (after[0] - before[0]), abs=1e-9)
        assert row["exposure"] == pytest.approx(sign * (after[1] - control[1]), abs=1e-9)
        if tag.has[case.target]:
            assert row["ndcg"] is None
        else:
            assert row["ndcg"] == pytest.approx(after[2] - control[2], abs=1e-9)


def test_undoing_an_edit_leaves_the_list_as_it_was_and_explanations_name_what_counts(catalog, tags, tmp_path):
    shown = TaggedCatalog(Reader(0.5), catalog, tags, Kept(tmp_path), {})
    judge = Judge(
        "none", lambda texts: np.ones((len(texts), 2), np.float32), lambda t: np.ones((len(t), 2), np.float32)
    )
    rows = measure_sessions(CASES, shown.recommender, tags, judge, catalog.texts, k=K, seed=0)
    assert rows["undone"].to_list() == [1.0] * 3
    assert rows["deleted_score"].min() >= 0
    assert set(rows["unit"]) == {"word"}
    assert set(rows["judged"]) == {0.5}


def test_tags_are_categories_and_words_that_recur(items):
    texts = items.with_columns(
        description=pl.Series(
            ["A binder, of binders the best, and handy" if i < 30 else "Handy and plain" for i in range(NUM_ITEMS)]
        )
    )
    assert set(all_tags(texts)) == {*KINDS, "binder"}
    tag = all_tags(texts)["binder"]
    assert (tag.kind, tag.num_items) == ("word", 30)
    assert tag.scrubbed("Two binders, a Binder's ring") == "Two , a ring"
    drawn = draw_tags(texts, 2, 10, 0)
    assert {tag.stratum for tag in drawn} <= {"rare", "medium", "common"}
    assert [tag.name for tag in drawn] == [tag.name for tag in draw_tags(texts, 2, 10, 0)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["dragos"], "no item has the tag 'dragos'.* Did you mean 'dragons'"),
        (["story"], "all 90 items have the tag 'story'"),
        (["7"], "no item has the tag '7'"),
        (["dragons", "Dragons"], "named twice"),
    ],
)
def test_a_tag_of_none_or_of_all_is_refused(items, names, message):
    with pytest.raises(InputError, match=message):
        named_tags(items, names, 5)
    with pytest.raises(InputError, match="18 of 90 items have the tag 'kitchens': at least 19"):
        named_tags(items, ["kitchens"], 19)
    with pytest.raises(InputError, match="lower --min-items"):
        draw_tags(items, 2, 46, 0)


def test_unrelated_tags_are_had_as_if_by_chance():
    has = np.zeros((3, 100), dtype=bool)
    has[0, :50], has[1, ::2], has[2, :60] = True, True, True
    found = unrelated([SimpleNamespace(has=row) for row in has])
    assert found.tolist() == [[False, True, False], [True, False, True], [False, True, False]]


@pytest.mark.parametrize("length", range(3, 40))
def test_fillers_have_the_length_that_is_asked_for(length):
    random = np.random.default_rng(0)
    assert num_words(filler_sentences(length, random)) == num_words(filler_aside(length, random)) == length
    for texts in (SENTENCES, ASIDES):
        assert all(num_words(text) == number for number, pair in texts.items() for text in pair)


def test_a_control_is_as_long_as_its_edit_and_speaks_of_no_tag(tags):
    text = "The user likes: old films."
    for edit in edits_of(text, tags, word_judge, 0):
        assert not any(kind in edit.control.text + " ".join(edit.control.requests) for kind in KINDS)
        assert num_words(edit.control.text) == num_words(edit.edited.text)
        assert list(edit.control.requests.values()) == list(edit.edited.requests.values())
        assert [num_words(r) for r in edit.control.requests] == [num_words(r) for r in edit.edited.requests]


def test_a_rewrite_says_the_wish_first_and_no_more_of_what_is_not_wanted(tags):
    wish = INSERTED["decrease"][2].format(tag="dragons")
    assert rewritten("The user likes: old Dragons and trains.", wish, "", tags[0]) == (
        "The user likes no dragons and wants less of it, but old and trains."
    )
    assert rewritten("Old films.", wish, "They hate it.", None) == "They hate it. Old films."


def test_clauses_are_parts_of_a_single_sentence():
    text = "The user likes Heat (1995), Up and Big; but no westerns."
    parts = clauses_of(text)
    assert [part.text for part in parts] == ["The user likes Heat (1995)", "Up", "and Big", "but no westerns."]
    assert all(text[part.start : part.end] == part.text for part in parts)
    assert without(text, parts[1:2]) == "The user likes Heat (1995), and Big; but no westerns."
    assert [part.text for part in clauses_of("One, two. Three.")] == ["One, two.", "Three."]


def test_choices_are_of_about_equal_popularity():
    popularity = np.repeat(np.arange(10), 10)
    sessions = SimpleNamespace(
        session_ids=np.array([3, 4]), targets=np.array([55, 5]), histories=np.array([[51, 52], [1, 99]])
    )
    sessions = type("Few", (SimpleNamespace,), {"__len__": lambda self: 2})(**vars(sessions))
    chosen = choices(sessions, popularity, 0)
    assert chosen[:, 0].tolist() == [55, 5]
    for row, history in zip(chosen, sessions.histories, strict=True):
        assert len(set(row)) == 5
        assert not set(row) & set(history)
        assert np.abs(popularity[row] - popularity[row[0]]).max() <= 2


def test_a_judge_recognises_what_is_nearest():
    profiles = np.eye(3, dtype=np.float32)
    items = np.stack([np.eye(3)[[0, 1]], np.eye(3)[[0, 1]], np.eye(3)[[0, 1]]]).astype(np.float32)
    assert recognised(profiles, items).tolist() == [1.0, 0.0, 0.5]
    assert repeated_sentences("") == 0


def test_all_pairs_of_variants_are_tested_on_what_they_share():
    users, numbers = np.array(["a", "b", "c"]), np.array([0.1, 0.2, 0.3])
    first, second = Values(np.arange(3), users, numbers), Values(np.arange(1, 3), users[1:], numbers[1:] - 0.1)
    (row,) = comparisons({"one": first, "two": second})
    assert (row["first"], row["second"], row["num_users"]) == ("one", "two", 2)
    assert row["difference"] == pytest.approx(0.1)
    assert row["p"] == row["p_holm"] == 0.5
    assert comparisons({"one": first, "two": Values(np.arange(7, 8), users[:1], numbers[:1])}) == []


def test_figures_of_variants_without_such_edits_are_empty(catalog, tags, tmp_path):
    rows = measured(0.0, catalog, tags, tmp_path)
    found = {
        (key["figure"], key["edit"]): values["one"] for key, values in of_edits({"one": rows}) if key["texts"] == AS_IS
    }
    assert len(found["monotonicity", "delete"]) == 0
    assert len(found["auc", "delete"]) == len(CASES)


def test_variants_are_the_parts_of_a_run_and_other_runs():
    def run(folder, method, policy=True, embedder=True):
        config = SimpleNamespace(method=method, trains_policy=policy, trains_embedder=embedder)
        return SimpleNamespace(folder=Path(folder), config=config)

    both, alone = run("a", "LangPTune"), run("b", "LangPTune-CL", policy=False)
    names = [variant.name for variant in variants_of(both, [alone, run("c", "LangPTune")])]
    assert names == [
        *("LangPTune-0", "trained embedder, initial policy", "initial embedder, trained policy", "LangPTune"),
        *("LangPTune-CL", "LangPTune (c)"),
    ]
    found = variants_of(alone, [])
    assert [variant.name for variant in found] == ["LangPTune-0", "LangPTune-CL"]
    assert [variant.policy.is_trained for variant in found] == [False, False]
    with pytest.raises(InputError, match="given twice"):
        variants_of(both, [alone, run("b", "LangPTune-CL", policy=False)])
    with pytest.raises(InputError, match="given twice"):
        variants_of(both, [both])
    with pytest.raises(InputError, match="given twice"):
        variants_of(alone, [run("c", "LangPTune"), run("c", "LangPTune")])


def test_a_judge_that_is_not_there_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install --no-deps wordllama.*--judge"):
        find_judge("wordllama", SimpleNamespace(model="m"))


def test_the_word_vectors_know_what_belongs_together():
    judge = find_judge("wordllama", SimpleNamespace(model="m"))
    near = judge.similarities(["horror films with ghosts", "office paper and ink", ""], "a scary movie")
    assert near[0] > near[1] > near[2] == 0


@pytest.mark.parametrize("values", [{"num_users": 1}, {"tags_per_stratum": 0}, {"min_items": 0}])
def test_too_little_to_measure_is_refused(values):
    with pytest.raises(InputError, match="is needed to measure"):
        Protocol(**values)


@pytest.fixture(scope="module")
def steered(evaluated_run, tmp_path_factory):
    """The tiny run, without the folder of its policy, and what the command printed of measuring it."""
    run = tmp_path_factory.mktemp("steered") / "run"
    shutil.copytree(evaluated_run, run, ignore=shutil.ignore_patterns("policy"))
    arguments = ["evaluate", run, "--steerability", "--users", 12, "--tags", 1, "--min-items", 5]
    arguments = [str(argument) for argument in [*arguments, "--judge", evaluated_run / "embedder"]]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return run, arguments, result.stdout


def figures_of(run):
    results = json.loads((run / "steerability.json").read_text(encoding="utf-8"))
    return {key: value for key, value in results.items() if key not in ("seconds", "versions")}


def test_the_command_measures_all_combinations_of_a_run(steered):
    run, _, printed = steered
    results = figures_of(run)
    assert [variant["name"] for variant in results["variants"]] == [
        *("LangPTune-0", "trained embedder, initial policy", "initial embedder, trained policy", "LangPTune")
    ]
    assert results["num_users"] == 12
    headline = {"figure": "auc", "edit": "append and rewrite", "direction": "increase", "texts": "as is"}
    own = [row for row in results["figures"] if headline.items() <= row.items()]
    assert [row["num_users"] for row in own] == [12] * 4
    assert all(row["low"] <= row["mean"] <= row["high"] for row in own)
    tests = [row for row in results["comparisons"] if headline.items() <= row.items()]
    assert len(tests) == 6
    assert all(row["p"] <= row["p_holm"] <= 1 for row in tests)
    undone = [row["mean"] for row in results["figures"] if row["figure"] == "undone"]
    assert undone == [1.0] * 4
    assert "Steering at a glance" in printed
    assert "More of a tag" in printed


def test_what_is_kept_is_not_measured_again_and_what_is_lost_comes_out_the_same(steered, monkeypatch):
    run, arguments, _ = steered
    before = figures_of(run)
    parts = sorted((run / "steerability").glob("*.parquet"))
    assert len(parts) == 2 * 4 * 2  # two parts of the sessions, four variants, two kinds of rows
    parts[0].unlink()
    opened = []
    own = Embedder.encode_profiles
    monkeypatch.setattr(Embedder, "encode_profiles", lambda self, texts: opened.append(len(texts)) or own(self, texts))
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert opened
    assert figures_of(run) == before
    opened.clear()
    monkeypatch.setattr(module, "open_embedder", None)
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert figures_of(run) == before


def test_a_damaged_part_is_named(steered, tmp_path):
    run, arguments, _ = steered
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    part = next((copy / "steerability").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:50])
    result = CliRunner().invoke(app, [argument.replace(str(run), str(copy)) for argument in arguments])
    assert result.exit_code == 2
    assert part.name in result.stderr
    assert "measured again" in result.stderr


def test_the_report_shows_it(steered):
    run, *_ = steered
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "steering" in page.ids
    assert len(page.ids) == len(set(page.ids))
    results = figures_of(run)
    glance = next(table for table in page.tables if table[1][0] == ["AUC: more"])
    headline = {"figure": "auc", "edit": "append and rewrite", "direction": "increase", "texts": "as is"}
    shown = [cell[0] for cell in glance[1][1:]]
    assert shown == [f"{row['mean']:+.3f}" for row in results["figures"] if headline.items() <= row.items()]
    (run / "steerability.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="steerability.json is damaged"):
        write_report(run)


def test_another_run_stands_beside_and_the_same_models_give_the_same_numbers(noted_run, evaluated_run, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        shutil.copytree(noted_run, folder)
    protocol = Protocol(num_users=3, tags=("dragons",), min_items=5, judge=str(evaluated_run / "embedder"))
    results = module.measure_steerability(run, others=[other], protocol=protocol)
    assert [variant["name"] for variant in results["variants"]][3:] == ["LangPTune", "LangPTune (other)"]
    own, same = (
        [
            {**row, "variant": ""}
            for row in results["figures"]
            if row["variant"] == name and row["section"] != "readability"
        ]
        for name in ("LangPTune", "LangPTune (other)")
    )
    assert own == same
    assert results["policies"] == ["initial policy", "trained policy", "trained policy of LangPTune (other)"]
    assert "trained policy of LangPTune (other)" in markdown(results)


def test_the_profiles_of_one_user_are_too_few(noted_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(noted_run, run)
    profiles = pl.read_parquet(run / "profiles.parquet")
    profiles.filter(pl.col("session_id") == profiles["session_id"][0]).write_parquet(run / "profiles.parquet")
    with pytest.raises(RunError, match="are of 1 user.* need at least two"):
        module.measure_steerability(run, protocol=Protocol(min_items=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steerability", "--tag", "dragonz"], "no item has the tag 'dragonz'"),
        (["--steerability", "--judge", "nowhere"], "nowhere"),
        (["--steerability", "--with", "nowhere"], "nowhere"),
        (["--users", "3"], "need --steerability"),
        (["--steerability", "--initial-from", "x"], "leave out"),
        (["--steerability", "--sessions", "5"], "--users"),
        (["--sessions", "0"], "greater than or equal to 1"),
    ],
)
def test_wrong_input_ends_with_a_sentence(noted_run, options, message):
    result = CliRunner().invoke(app, ["evaluate", str(noted_run), *options])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
