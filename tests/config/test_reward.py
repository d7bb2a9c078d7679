"""The grammar of rewards."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.config import load_config
from langptune_rs.config.reward import TERMS, WITH_CUT, Term, parse_reward
from langptune_rs.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ndcg", [(1, "ndcg", None)]),
        ("mrr@10", [(1, "mrr", 10)]),
        (
            "ndcg + 0.05 log_softmax - 0.1 copied",
            [(1, "ndcg", None), (0.05, "log_softmax", None), (-0.1, "copied", None)],
        ),
        (" -2*length+.5 * ndcg@20 ", [(-2, "length", None), (0.5, "ndcg", 20)]),
        ("1e-2 mrr-1.5E+1*repetition", [(0.01, "mrr", None), (-15, "repetition", None)]),
        ("log_rank\n+ 3. log_rank", [(1, "log_rank", None), (3, "log_rank", None)]),
        ("ndcg @ 20 - ndcg", [(1, "ndcg", 20), (-1, "ndcg", None)]),
    ],
)
def test_a_reward_is_a_sum_of_terms(text, terms):
    assert parse_reward(text) == tuple(Term(*term) for term in terms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a term is missing; a reward is a sum of terms"),
        ("ndcg +", "a term is missing"),
        ("ndcg + - copied", "a term is missing"),
        ("recall", r"there is no term 'recall' \(there are ndcg, mrr, log_rank"),
        ("ndgc@20", r"there is no term 'ndgc' \(did you mean ndcg\? there are ndcg, mrr, log_rank"),
        ("0.1 log-rank + ndcg", r"there is no term 'log-rank' \(did you mean log_rank\?"),
        ("ndcg + logsoftmax", r"did you mean log_softmax\?.* such as ndcg \+ 0.05 log_softmax - 0.1 copied"),
        ("NDCG", r"did you mean ndcg\?"),
        ("0.5", "there is no term '0.5'"),
        ("0.5 *", r"'0.5 \*' is no term"),
        ("ndcg * 0.5", r"'ndcg \* 0.5' has its weight behind the term: write 0.5 ndcg"),
        ("ndcg 20", "'ndcg 20' has its weight behind the term: write 20 ndcg, or ndcg@20 for a cut"),
        ("ndcg@5 2", "'ndcg@5 2' has its weight behind the term: write 2 ndcg@5"),
        ("ndcg + 0.05log_softmax", "'0.05log_softmax' has no space behind its weight: write 0.05 log_softmax"),
        ("2ndcg@20", "'2ndcg@20' has no space behind its weight: write 2 ndcg@20"),
        ("2ndgc", "there is no term '2ndgc'"),
        ("half ndcg", "'half' before ndcg is no number that can be its weight"),
        ("nan ndcg", "'nan' before ndcg is no number"),
        ("inf * ndcg", "'inf' before ndcg is no number"),
        ("0.1.2 ndcg", "'0.1.2' before ndcg is no number"),
        ("1_0 ndcg", "'1_0' before ndcg is no number"),
        ("ndcg copied", r"'ndcg' before copied .* two terms have \+ or - between them"),
        ("ndcg 0.1 copied", "'ndcg 0.1 copied' is no term"),
        ("1e999 ndcg", "ndcg has the weight 1e999: write a number from 0.000001 to 1,000,000"),
        ("1e200 ndcg", "ndcg has the weight 1e200"),
        ("mrr - 1e-200 ndcg", "ndcg has the weight 1e-200"),
        ("ndcg - 0.0 copied", r"copied has the weight 0\.0"),
        ("ndcg@0", "ndcg@0 has no cut that can be: write ndcg, or ndcg@20"),
        ("ndcg@", "ndcg@ has no cut that can be"),
        ("mrr@2.5", "mrr@2.5 has no cut that can be: write mrr, or mrr@20"),
        ("ndcg@9999999999999999999", "has no cut that can be"),
        ("0.1 ndcg + 0.2 ndcg - 0.3 ndcg", "the weights of ndcg add up to nothing: leave it out, or write it once"),
        ("log_rank@20", "log_rank@20 has a cut, which only ndcg and mrr may have: write log_rank"),
    ],
)
def test_a_reward_that_does_not_parse_is_refused_with_the_way_out(text, message):
    with pytest.raises(ValueError, match=message):
        parse_reward(text)
    with pytest.raises(ConfigError, match=f"^rlso.reward = {re.escape(repr(text))}: "):
        load_config("quickstart", [f'rlso.reward="{text}"'])


@given(st.text("ndcgmr@05.e+-* _", max_size=12) | st.text(max_size=8))
def test_any_text_is_parsed_or_refused(text):
    try:
        terms = parse_reward(text)
    except ValueError:
        return
    assert all(term.name in TERMS and term.weight for term in terms)


NUMBERS = st.floats(1e-6, 1e6).map(repr) | st.integers(1, 10**6).map(str)
CUTS = st.none() | st.integers(1, 10**18 - 1)
TITLES = st.sampled_from([(name, None) for name in TERMS]) | st.tuples(st.sampled_from(WITH_CUT), CUTS)
SUMMANDS = st.tuples(st.sampled_from("+-"), NUMBERS, TITLES)


@given(st.lists(SUMMANDS, min_size=1, unique_by=lambda summand: summand[2]))
def test_what_is_written_by_the_grammar_is_read(summands):
    titles = [name if k is None else f"{name}@{k}" for _, _, (name, k) in summands]
    text = " ".join(f"{sign} {weight} * {title}" for (sign, weight, _), title in zip(summands, titles, strict=True))
    terms = parse_reward(text)
    assert [term.title for term in terms] == titles
    assert [term.weight for term in terms] == [float(sign + weight) for sign, weight, _ in summands]
    assert parse_reward(text.replace(" ", "")) == terms


@pytest.mark.parametrize(
    ("reward", "gamma", "limit"),
    [
        ("log_softmax", 0, "has no lower limit"),
        ("log_softmax", -9, "has no lower limit"),
        ("ndcg + 0.1 log_rank", -1, "has no lower limit"),
        ("ndcg - 1.0 copied", 0, "can be as low as -1"),
        ("ndcg - 1.0 copied - 0.5 length", -1, "can be as low as -1.5"),
        ("ndcg", 1, "can be as low as 0"),
        ("2 mrr@20", 0.1, "can be as low as 0"),
    ],
)
def test_a_reward_that_can_be_below_gamma_needs_a_penalty_of_what_does_not_end(reward, gamma, limit):
    without = (f"rlso.reward={reward}", f"rlso.overlong_reward={gamma}", "rlso.overlong_penalty=none")
    message = rf"rlso.reward = .* {limit}, which is below rlso.overlong_reward = .* set rlso.overlong_penalty, such"
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart", without)
    for way_out in ("rlso.overlong_penalty=0.5", "method=LangPTune-CL"):
        load_config("quickstart", [*without, way_out])


@pytest.mark.parametrize(
    ("reward", "gamma"),
    [("ndcg", 0), ("ndcg", -1), ("ndcg - 0.1 log_rank", 0), ("ndcg - 0.1 copied", -0.1), ("mrr - copied - length", -2)],
)
def test_a_gamma_that_no_reward_is_below_needs_no_penalty(reward, gamma):
    load_config("quickstart", [f"rlso.reward={reward}", f"rlso.overlong_reward={gamma}", "rlso.overlong_penalty=none"])


@pytest.mark.parametrize(
    "override",
    [
        "rlso.reward_temperature=0",
        "rlso.reward_temperature=1e-300",
        "rlso.reward_temperature=1e200",
        "contrastive.temperature=1e-50",
        "contrastive.temperature=1e50",
        "profile.temperature=0",
        "profile.temperature=1e-50",
        "profile.temperature=1e300",
        "rlso.eta=1e-300",
        "rlso.eta=1e300",
        "rlso.kl_penalty=1e200",
        "rlso.overlong_penalty=-1",
        "rlso.overlong_penalty=1e200",
        "rlso.overlong_reward=-1e200",
        "rlso.standardize=none",
    ],
)
def test_a_number_that_float32_or_a_square_makes_0_or_infinite_is_refused(override):
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        load_config("quickstart", [override])
