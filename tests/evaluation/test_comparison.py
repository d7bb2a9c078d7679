"""compare: every pair once, corrected for their number."""

import numpy as np
import pytest

from langptune_rs import compare, evaluate
from langptune_rs.errors import InputError
from langptune_rs.evaluation.significance import holm, paired_permutation_test, paired_t_test

RNG = np.random.default_rng(0)
RANKS = RNG.integers(1, 200, 500)
RESULTS = {
    "first": evaluate(np.maximum(1, RANKS // 2), ["ndcg@20", "mrr"]),
    "second": evaluate(RANKS, ["ndcg@20", "mrr"]),
    "third": evaluate(RNG.permutation(RANKS), ["ndcg@20"]),
}


def test_every_pair_is_tested_and_corrected():
    comparison = compare(RESULTS, metric="ndcg@20", seed=3)
    names = [("first", "second"), ("first", "third"), ("second", "third")]
    assert [(pair.first, pair.second) for pair in comparison.pairs] == names
    scores = {name: result.per_user["ndcg@20"] for name, result in RESULTS.items()}
    p_values = [paired_permutation_test(scores[a], scores[b], seed=3) for a, b in names]
    assert [pair.p_value for pair in comparison.pairs] == p_values
    assert [pair.p_adjusted for pair in comparison.pairs] == holm(p_values)
    for pair in comparison.pairs:
        assert pair.difference == pytest.approx((scores[pair.first] - scores[pair.second]).mean(), abs=1e-14)
    assert comparison.means == {name: result.mean["ndcg@20"] for name, result in RESULTS.items()}
    assert comparison.intervals["third"] == RESULTS["third"].confidence_interval("ndcg@20", seed=3)


def test_pairs_by_the_t_test():
    comparison = compare(RESULTS, metric="ndcg@20", test="t")
    scores = {name: result.per_user["ndcg@20"] for name, result in RESULTS.items()}
    p_values = [paired_t_test(scores[pair.first], scores[pair.second]) for pair in comparison.pairs]
    assert [pair.p_value for pair in comparison.pairs] == p_values
    assert [pair.p_adjusted for pair in comparison.pairs] == holm(p_values)
    by_permutation = compare(RESULTS, metric="ndcg@20")
    assert (comparison.test, by_permutation.test) == ("t", "permutation")
    assert comparison.intervals == by_permutation.intervals
    assert comparison.pairs != by_permutation.pairs


def test_a_pair_is_found_in_either_order():
    comparison = compare(RESULTS, metric="ndcg@20")
    one, other = comparison.pair("first", "third"), comparison.pair("third", "first")
    assert (one.difference, one.p_value) == (-other.difference, other.p_value)
    assert (other.first, other.second) == ("third", "first")
    with pytest.raises(InputError, match=r'"first" and "fourth" were not compared: there are first, second, third'):
        comparison.pair("first", "fourth")


def test_a_comparison_prints_as_tables():
    results = {"a": evaluate([1, 1], ["mrr"]), "long name": evaluate([2, 2], ["mrr"])}
    comparison = compare(results, metric="mrr")
    assert str(comparison) == comparison.to_markdown()
    assert comparison.to_markdown().splitlines() == [
        "| method    |    mrr |     95% interval |",
        "|-----------|-------:|-----------------:|",
        "| a         | 1.0000 | 1.0000 to 1.0000 |",
        "| long name | 0.5000 | 0.5000 to 0.5000 |",
        "",
        "| pair          | difference |   p | p (Holm) |",
        "|---------------|-----------:|----:|---------:|",
        "| a - long name |    +0.5000 | 0.5 |      0.5 |",
    ]


def test_a_comparison_prints_as_latex():
    results = {"a_1": evaluate([2, 2], ["mrr@5"]), "B & C": evaluate([1, 1], ["mrr@5"])}
    assert compare(results, metric="mrr@5").to_latex().splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & mrr@5 & 95\% interval \\",
        r"\midrule",
        r"a\_1 & $0.5000$ & 0.5000 to 0.5000 \\",
        r"B \& C & $1.0000$ & 1.0000 to 1.0000 \\",
        r"\bottomrule",
        r"\end{tabular}",
        "",
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"pair & difference & p & p (Holm) \\",
        r"\midrule",
        r"a\_1 - B \& C & $-0.5000$ & $0.5$ & $0.5$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_what_cannot_be_compared():
    with pytest.raises(InputError, match=r"compare got 1 method"):
        compare({"first": RESULTS["first"]}, metric="mrr")
    with pytest.raises(InputError, match=r'"mrr" was not evaluated'):
        compare(RESULTS, metric="mrr")
    with pytest.raises(InputError, match=r"was not evaluated"):
        compare(RESULTS, metric=["mrr"])
    with pytest.raises(InputError, match=r"results is a list: pass results by name"):
        compare(list(RESULTS.values()), metric="mrr")
    with pytest.raises(InputError, match=r"results\['b'\] is a int: pass what evaluate\(\) returns"):
        compare({"a": RESULTS["first"], "b": 2}, metric="mrr")
    with pytest.raises(InputError, match=r'test = \'anova\': pass "permutation" or "t"'):
        compare(RESULTS, metric="ndcg@20", test="anova")
    with pytest.raises(InputError, match=r"different numbers of users, \{'a': 500, 'b': 2\}"):
        compare({"a": RESULTS["first"], "b": evaluate([1, 2], ["mrr"])}, metric="mrr")
