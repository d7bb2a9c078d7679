"""The parts of a profile: nothing is lost, nothing is twice, and what is left out is left out."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langptune_rs.errors import InputError
from langptune_rs.recommending.sentences import by_name, nth_sentence, parts_of, without

PROFILES = st.text(st.sampled_from("ab Z.!?\n\r\t,-'\"()\u3002\u00a0é\U0001f600"), max_size=60)


@given(PROFILES, st.sampled_from(["sentence", "word"]))
@example("Dr. No (1962) is great? Yes.\n\n- less horror", "sentence")
def test_parts_hold_all_but_white_space_in_order(profile, by):
    parts = parts_of(profile, by)
    assert all(profile[part.start : part.end] == part.text == part.text.strip() != "" for part in parts)
    assert all(one.end <= next_.start for one, next_ in pairwise(parts))
    assert "".join("".join(part.text.split()) for part in parts) == "".join(profile.split())


@given(PROFILES)
def test_without_some_parts_the_others_stay(profile):
    parts = parts_of(profile)
    left = without(profile, parts[::2])
    assert "".join(left.split()) == "".join("".join(part.text.split()) for part in parts[1::2])
    assert left == left.strip()


def test_sentences_end_where_a_reader_ends_them():
    profile = "She likes Mrs. Doubtfire (1993), e.g. for its humour. No horror!\n- trains\n- cats, 2.5 hours at most"
    assert [part.text for part in parts_of(profile)] == [
        "She likes Mrs. Doubtfire (1993), e.g. for its humour.",
        "No horror!",
        "- trains",
        "- cats, 2.5 hours at most",
    ]
    japanese = ["私はSFが好きです。", "ホラーは嫌いです。"]
    assert [part.text for part in parts_of("".join(japanese))] == japanese


def test_what_is_left_reads_well():
    profile = "One. Two. Three."
    one, two, three = parts_of(profile)
    assert without(profile, [one]) == "Two. Three."
    assert without(profile, [two]) == "One. Three."
    assert without(profile, [three, one]) == "Two."
    assert without("- a\n- b\n- c", parts_of("- a\n- b\n- c")[1:2]) == "- a\n- c"


def test_a_number_out_of_range_and_an_unknown_kind_are_refused():
    assert nth_sentence("One. Two.", 2).text == "Two."
    for number in (0, 3, -1):
        with pytest.raises(InputError, match=f"no sentence {number}: the profile has 2 sentences, counted from 1"):
            nth_sentence("One. Two.", number)
    with pytest.raises(InputError, match="no parts called 'clause': choose sentence or word"):
        by_name("clause")
