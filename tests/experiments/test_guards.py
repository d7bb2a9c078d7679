"""What the profiles of runs rest on: the pure rules, the numbers against a brute force, and what is kept."""

import json
import re
import shutil
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tests.experiments.tiny import make_run
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config import load_config, to_toml
from langptune_rs.errors import InputError, RunError
from langptune_rs.evaluation.significance import paired_permutation_test
from langptune_rs.experiments.compare import guards as module
from langptune_rs.experiments.compare.from_runs import rows_of_runs
from langptune_rs.experiments.compare.guards import derangement, guard_rows, scrub, title_words
from langptune_rs.experiments.compare.page import cells_of_guards, doubts, guard_header
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.evaluate import evaluate_run
from langptune_rs.models.policy import Policy
from langptune_rs.runs.folder import open_dataset, read_config
from langptune_rs.runs.origin import Data, write_origin
from langptune_rs.runs.results import read_scores


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("The Matrix (1999)", {"matrix"}),
        ("2012 (2009)", {"2012"}),
        ("1984 [1984]", {"1984"}),
        ("Person of Interest: Season 4 (2013–2014)", {"person", "interest", "season"}),
        ("12 Angry Men", {"12", "angry", "men"}),
        ("Schindler’s List", {"schindler", "list"}),
        ("You've Got Mail, Don't You?", {"got", "mail"}),
        ("It (2017)", set()),
        ("M", set()),
        ("", set()),
        ("LÉON: Das Boot_Straße", {"léon", "das", "boot", "strasse"}),
        ("Spider-Man vs. O'Brien", {"spider", "man", "vs", "o'brien"}),
    ],
)
def test_the_words_of_a_title_are_those_that_name_it(title, words):
    assert title_words(title) == words


@pytest.mark.parametrize(
    ("text", "title", "scrubbed"),
    [
        ("Loves the Matrix and THE MATRIX's world.", "The Matrix (1999)", "Loves the and THE world."),
        ("Likes matrices and the submatrix.", "The Matrix (1999)", "Likes matrices and the submatrix."),
        ("Films of 1999, of the 1990s.", "The Matrix (1999)", "Films of 1999, of the 1990s."),
        ("Read 1984 in 1984!", "1984 (1984)", "Read in !"),
        ("1. Toys\n2. _Story_, __Story 2__", "Toy Story 2", "1. Toys\n2. __, __ 2__"),
        ("Heat", "Heat (1995)", ""),
        ("Heat\n\nHeat wave", "Heat", "\n\nwave"),
        ("The user doesn't get it.", "It Doesn't Get The User", "The doesn't it."),
        ("  Keeps   its\tspaces ", "Other", "  Keeps   its\tspaces "),
        ("Schindler’s List, Schindler's lists", "Schindler's List", ", lists"),
    ],
)
def test_whole_words_of_the_title_go_in_any_case_and_all_else_stays(text, title, scrubbed):
    assert scrub(text, title_words(title)) == scrubbed


WORDS = st.sampled_from(
    ["the", "Matrix", "matrix", "submatrix", "Heat", "2012", "(1999)", "it", "_x_", "ÉTÉ", ",", "\n"]
)


@given(st.lists(WORDS, max_size=12), st.lists(WORDS, max_size=5))
def test_what_is_left_are_the_other_words_in_their_order(text, title):
    """Against a rule of its own: split at spaces, strip what is no letter or digit, compare without 's."""
    text, words = " ".join(text), title_words(" ".join(title))

    def bare(text):
        return [word for word in (part.strip("(_),") for part in text.split()) if word]

    left = [word for word in bare(text) if word.lower().removesuffix("'s") not in words]
    found = scrub(text, words)
    assert bare(found) == left
    assert scrub(found, words) == found
    assert words or found == text


@given(st.lists(st.integers(0, 5), max_size=25), st.integers(0, 3))
def test_no_session_gets_a_profile_of_its_own_user(users, seed):
    """A permutation wherever there is one: by Hall's theorem where no user has more than half of the sessions."""
    if users and 2 * Counter(users).most_common(1)[0][1] > len(users):
        with pytest.raises(InputError, match="more users"):
            derangement(users, seed)
        return
    found = derangement(users, seed)
    assert sorted(found) == list(range(len(users)))
    assert all(users[i] != users[j] for i, j in enumerate(found))
    assert np.array_equal(found, derangement(users, seed))


def test_another_seed_swaps_otherwise():
    users = [f"u{i // 2}" for i in range(40)]
    assert not np.array_equal(derangement(users, 0, "x"), derangement(users, 1, "x"))


@pytest.fixture(scope="module")
def run(noted_run, tmp_path_factory):
    """A run whose profiles name a story: the target's for every other one, another item's for the rest."""
    run = tmp_path_factory.mktemp("named") / "run"
    shutil.copytree(noted_run, run)
    dataset = open_dataset(read_config(run), run)
    targets = dict(zip(dataset.sessions.session_ids.tolist(), dataset.sessions.targets.tolist(), strict=True))
    profiles = pl.read_parquet(run / "profiles.parquet")
    items = [targets[session] if i % 2 else i % 40 for i, session in enumerate(profiles["session_id"])]
    texts = [f"{i % 7} days of {dataset.catalog.titles[item]}" for i, item in enumerate(items)]
    profiles.with_columns(pl.Series("text", texts)).write_parquet(run / "profiles.parquet")
    return run


def measured(runs, output, limit=None):
    """The rows of runs with their guards, and their sessions."""
    dataset = open_dataset(read_config(runs[0]), runs[0])
    ranked = Ranked(runs[0] / "data", dataset.content, "test", None, 0, 20)
    rows, sessions = rows_of_runs(runs, ranked, None)
    if limit:
        rows, sessions = rows_of_runs(runs, ranked, sessions[:limit])
    return {row.name: row for row in guard_rows(rows, sessions, ranked, dataset, output)}, sessions, dataset


@pytest.fixture(scope="module")
def guarded(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("guards")
    return *measured([run], output), output


def brute_force(dataset, sessions, model, texts_NS):
    """The lowest and the highest NDCG@20 of each session that float64 and a tolerance allow."""
    items = model.encode(dataset.catalog.texts.to_list(), normalize_embeddings=True).astype(np.float64)
    bounds = []
    for i, texts in enumerate(texts_NS):
        users = model.encode(list(texts), prompt_name="query", normalize_embeddings=True).astype(np.float64)
        scores = users @ items.T
        scores[:, sessions.histories[i]] = -np.inf
        own = scores[:, [sessions.targets[i]]]
        best, worst = (1 + (scores > own + 1e-5).sum(1)), (scores > own - 1e-5).sum(1)
        bounds.append([np.where(ranks <= 20, 1 / np.log2(1 + ranks), 0).mean() for ranks in (worst, best)])
    return np.array(bounds).T


@pytest.mark.parametrize(("name", "decoding"), [("LangPTune-0", "sampled"), ("LangPTune", "greedy")])
def test_the_guards_are_those_of_a_brute_force(guarded, run, name, decoding):
    rows, frame, dataset, _ = guarded
    config, samples = read_config(run), 2 if decoding == "sampled" else 1
    sessions = dataset.sessions.select("test")
    assert sessions.session_ids.tolist() == frame["session_id"].to_list()
    model = SentenceTransformer(str(run / "embedder"), device="cpu")
    if name == "LangPTune-0":
        prompts = model.prompts
        model = SentenceTransformer(config.embedder.model, device="cpu", prompts=prompts)
    written = pl.read_parquet(run / "profiles.parquet").filter(policy=name, decoding=decoding)
    texts = written["text"].to_numpy().reshape(len(sessions), samples)
    guards = rows[f"{name}, sampled" if decoding == "sampled" else name].guards

    def holds(found, texts_NS):
        low, high = brute_force(dataset, sessions, model, texts_NS)
        assert (low - 1e-12 <= found).all()
        assert (found <= high + 1e-12).all()

    titles = [dataset.catalog.titles[target] for target in sessions.targets]
    kept = [[scrub(text, title_words(title)) for text in row] for row, title in zip(texts, titles, strict=True)]
    holds(guards.scrubbed, kept)
    assert guards.changed == pytest.approx((np.array(kept, dtype=object) != texts).mean(1, dtype=float))
    assert 0 < guards.changed.mean() <= 1
    assert guards.copied == pytest.approx(written["copied_share"].to_numpy().reshape(-1, samples).mean(1))
    donors = derangement(sessions.user_ids.to_list(), config.seed, "history-swap")
    holds(guards.swapped, texts[donors])
    holds(guards.memorised, np.full((len(sessions), 1), guards.without_history[0]))
    holds(guards.titles, [[dataset.history_titles(sessions, i)] for i in range(len(sessions))])
    assert (guards.swapped != rows[name].scores["ndcg@20"]).any()
    assert (guards.titles != rows[name].scores["ndcg@20"]).any()


def test_the_profile_without_a_history_is_written_by_the_policy_of_the_row(guarded, run):
    """Greedily, by transformers' own loop over the logits."""
    import torch

    rows, _, dataset, _ = guarded
    config = read_config(run)
    prompt = dataset.template.instruction
    for name, folder in (("LangPTune-0", None), ("LangPTune", run / "policy")):
        policy = Policy.load(config.policy) if folder is None else Policy.from_folder(folder, config.policy)
        tokens = policy.encode_prompt(prompt)
        start = len(tokens)
        with torch.no_grad():
            while len(tokens) - start < config.profile.max_tokens and tokens[-1] not in policy.eos_ids:
                tokens = [*tokens, int(policy.model(torch.tensor([tokens])).logits[0, -1].argmax())]
        assert rows[name].guards.without_history == [policy.decode(tokens[start:])]
        assert rows[f"{name}, sampled"].guards.without_history == rows[name].guards.without_history


def test_what_is_kept_is_not_computed_again_and_what_changed_is(guarded, run, tmp_path, monkeypatch):
    rows, _, _, output = guarded
    kept = tmp_path / "guards"
    shutil.copytree(output, kept)
    files = {file.name.rpartition("-")[0]: file for file in kept.iterdir()}
    assert files.keys() == {"langptune", "langptune-0"}
    computed = []
    real = module._guards

    def counted(of, name, *others):
        computed.append(name)
        return real(of, name, *others)

    monkeypatch.setattr(module, "_guards", counted)
    again, _, _ = measured([run], kept)
    assert computed == []
    for name, row in rows.items():
        assert np.array_equal(again[name].guards.swapped, row.guards.swapped)
        assert np.array_equal(again[name].guards.scrubbed, row.guards.scrubbed)

    own = files["langptune"]
    own.unlink()  # as after a kill
    measured([run], kept)
    assert computed == ["LangPTune"]
    assert pl.read_parquet(own).equals(pl.read_parquet(output / own.name))

    changed = tmp_path / "run"
    shutil.copytree(run, changed)
    profiles = pl.read_parquet(changed / "profiles.parquet")
    profiles.with_columns(pl.lit("Story").alias("text")).write_parquet(changed / "profiles.parquet")
    found, _, _ = measured([changed], kept)
    assert computed == ["LangPTune", "LangPTune-0", "LangPTune"]
    assert len(list(kept.iterdir())) == 4
    assert found["LangPTune"].guards.changed.tolist() == [1.0] * len(found["LangPTune"].guards.changed)

    own.write_bytes(own.read_bytes()[:-10])
    with pytest.raises(RunError, match="is damaged.*Remove that file"):
        measured([run], kept)


def test_seeds_are_averaged_for_each_session_and_sessions_are_those_compared(guarded, run, tmp_path):
    rows, *_ = guarded
    other = tmp_path / "other"
    shutil.copytree(run, other)
    config = (other / "config.toml").read_text()
    (other / "config.toml").write_text(re.sub(r"(?m)^seed = 0$", "seed = 1", config, count=1))
    assert read_config(other).seed == 1
    own, _, _ = measured([other], tmp_path / "own")
    both, sessions, _ = measured([run, other], tmp_path / "own", limit=7)
    assert len(sessions) == 7
    for name, row in both.items():
        first, second = rows[name].guards, own[name].guards
        assert row.guards.swapped == pytest.approx((first.swapped + second.swapped)[:7] / 2)
        assert row.guards.scrubbed == pytest.approx((first.scrubbed + second.scrubbed)[:7] / 2)
        assert row.guards.without_history == [*first.without_history, *second.without_history]
        assert not np.array_equal(first.swapped, second.swapped)


def test_one_user_has_no_other_to_swap_with(tmp_path):
    run = make_run(tmp_path, method="LangPTune-RLSO", max_sessions=1, samples=0)
    evaluate_run(run, progress=False)
    write_origin(run, Data.of(open_dataset(read_config(run), run)))
    rows, _, _ = measured([run], tmp_path / "guards")
    assert list(rows) == ["LangPTune-0", "LangPTune-RLSO"]
    assert all(row.guards.swapped is None for row in rows.values())
    assert all(len(row.guards.memorised) == 1 for row in rows.values())


def test_a_run_of_one_iteration_shows_its_embedder_with_the_initial_policy_too(run, guarded, tmp_path):
    """As LangPTune-CL, unless runs of that are given."""
    rows, _, _, _ = guarded
    assert "LangPTune-CL" not in rows, "of two iterations the embedder has read trained profiles"
    one = tmp_path / "one"
    shutil.copytree(run, one)
    (one / "config.toml").write_text(to_toml(load_config(one / "config.toml", ["iterations=1"])))
    found, frame, _ = measured([one], tmp_path / "guards")
    scores = read_scores(one).filter(method="contrastive")
    for decoding, table in (("greedy", "parts"), ("sampled", "sampled_parts")):
        name = "LangPTune-CL, sampled" if decoding == "sampled" else "LangPTune-CL"
        own = scores.filter(table=table).sort("session_id")["ndcg@20"].to_numpy()
        assert np.array_equal(found[name].scores["ndcg@20"], own)
        assert found[name].costs["fit_seconds"] is None
        untrained = rows[name.replace("-CL", "-0")].guards
        assert found[name].guards.without_history == untrained.without_history
        assert np.array_equal(found[name].guards.copied, untrained.copied)
        assert np.array_equal(found[name].guards.titles, rows["LangPTune"].guards.titles), "the embedder is the same"
    assert len(frame) == len(own)


def guards_of(difference, p):
    numbers = {"mean": 0.1, "low": 0.05, "high": 0.15}
    swapped = None if p is None else {**numbers, "difference": difference, "interval": [-1, 1], "p": p}
    return {
        "scrubbed": numbers,
        "changed_share": 0.25,
        "copied_share": 0.5,
        "swapped": swapped,
        "memorised": numbers,
        "titles": {**numbers, "difference": 0.1, "interval": [-1, 1], "p": 0.04},
        "without_history": ["Likes films."],
    }


def test_profiles_that_another_user_could_have_are_said_to_be_such():
    measured = {"MP": None, "good": guards_of(0.1, 0.0001), "chance": guards_of(0.1, 0.2)}
    measured |= {"worse": guards_of(-0.1, 0.001), "alone": guards_of(None, None)}
    own = {"ndcg@20": {"mean": 0.2}}
    rows = [{"name": name, "metrics": own, "guards": guards} for name, guards in measured.items()]
    comparison = {"k": 20, "rows": rows}
    said = doubts(comparison)
    assert [sentence.split(" ")[0].rstrip(":") for sentence in said] == ["chance", "worse", "alone"]
    assert "(difference -0.1000, p = 0.001)" in said[1]
    shown = cells_of_guards(comparison)
    mean = "0.1000 [0.0500, 0.1500]"
    assert shown[0] == ["good", "0.2000", mean, "25%", "50%", mean, "< 0.001", mean, mean, "0.040"]
    assert shown[3][5:7] == ["–", "–"]
    assert {len(row) for row in shown} == {len(guard_header(comparison))}


def compare(run, output, *options):
    return CliRunner().invoke(
        app,
        [
            *("compare", str(run / "data"), "--output", str(output), "--methods", "MP", "--run", str(run)),
            *("--config", str(run / "config.toml"), *options),
        ],
    )


@pytest.mark.slow
def test_the_command_shows_them_and_needs_no_model_without_them(guarded, run, tmp_path):
    rows, frame, _, output = guarded
    out = tmp_path / "out"
    shutil.copytree(output, out / "guards")
    result = compare(run, out)
    assert result.exit_code == 0, result.output
    found = {row["name"]: row for row in json.loads((out / "comparison.json").read_text())["rows"]}
    assert found["MP"]["guards"] is None
    users = frame["user_id"].to_list()
    own = read_scores(run).filter(table="methods", method="LangPTune").sort("session_id")["ndcg@20"].to_numpy()
    shown, guards = found["LangPTune"]["guards"], rows["LangPTune"].guards
    assert shown["swapped"]["p"] == paired_permutation_test(own, guards.swapped, clusters=users)
    assert shown["swapped"]["difference"] == pytest.approx((own - guards.swapped).mean())
    assert shown["swapped"]["mean"] == pytest.approx(guards.swapped.mean())
    assert shown["memorised"]["mean"] == pytest.approx(guards.memorised.mean())
    assert shown["titles"]["mean"] == pytest.approx(guards.titles.mean())
    assert shown["titles"]["difference"] == pytest.approx((own - guards.titles).mean())
    assert shown["titles"]["p"] == paired_permutation_test(own, guards.titles, clusters=users)
    assert shown["changed_share"] == pytest.approx(guards.changed.mean())
    page, markdown, tex = ((out / f"comparison.{kind}").read_text() for kind in ("html", "md", "tex"))
    for text in (result.output, page, markdown, tex):
        assert "What the profiles rest on" in text
    for row in rows.values():
        scrubbed = f"{row.guards.scrubbed.mean():.4f}"
        line = next(
            x for x in markdown.partition("What the profiles")[2].splitlines() if x.startswith(f"| {row.name} ")
        )
        assert scrubbed in line
        assert scrubbed in page
        assert any(x.startswith(row.name) and scrubbed in x for x in tex.partition("What the")[2].splitlines())
    assert page.count("<caption>") == 4
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 5

    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    shutil.rmtree(bare / "embedder")
    shutil.rmtree(out / "guards")
    refused = compare(bare, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} <= {"data", ".lock"}, "it is refused before any fit"
    assert refused.exit_code == 2
    assert "no trained embedder" in " ".join(refused.output.split())
    assert "--no-guards" in refused.output
    result = compare(bare, out, "--no-guards")
    assert result.exit_code == 0, result.output
    comparison = json.loads((out / "comparison.json").read_text())
    assert all(row["guards"] is None for row in comparison["rows"])
    assert all((row["milliseconds"] is None) == (row["group"] == "Profile-based") for row in comparison["rows"])
    assert "What the profiles rest on" not in (out / "comparison.html").read_text()
