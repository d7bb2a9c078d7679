"""Edits of a profile: what they change, what they keep, and what they refuse."""

import math

import pytest

from langptune_rs.errors import InputError
from langptune_rs.recommending.edits import Profile, Remove, Request, Rewrite, Weigh, edits_of

PROFILE = Profile("Slow trains. Loud cats. Old kitchens.")


def test_a_rewrite_keeps_the_weights_of_sentences_that_stay():
    weighed = Weigh(3, 0.5)(Weigh(2, 2.0)(PROFILE))
    assert weighed.weights == {"Loud cats.": 2.0, "Old kitchens.": 0.5}
    assert Rewrite("Loud cats. Red dragons.")(weighed) == Profile("Loud cats. Red dragons.", {"Loud cats.": 2.0})
    assert Remove(2)(weighed) == Profile("Slow trains. Old kitchens.", {"Old kitchens.": 0.5})
    assert weighed.text == PROFILE.text


def test_a_weight_of_one_and_a_request_of_none_are_the_profile_before():
    assert Weigh(2, 1)(Weigh(2, 3)(PROFILE)) == PROFILE
    assert Request("dragons", 0)(Request("dragons", -2)(PROFILE)) == PROFILE


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Rewrite(" \n"), "leaves an empty profile: write at least a word"),
        (Remove(4), "no sentence 4: the profile has 3 sentences"),
        (Remove(0), "no sentence 0"),
        (Weigh(9, 1), "no sentence 9"),
        (Weigh(1, -1), "weight -1 of sentence 1 is not from 0 to 5: 1 leaves"),
        (Weigh(1, math.nan), "weight nan"),
        (Weigh(1, math.inf), "weight inf"),
        (Request("  "), "the request is empty"),
        (Request("cats", 6), "weight 6 of the request 'cats' is not from -5 to 5"),
        (Request("cats", math.nan), "weight nan"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(edit, message):
    with pytest.raises(InputError, match=message):
        edit(PROFILE)


def test_the_only_sentence_is_not_removed():
    with pytest.raises(InputError, match="without sentence 1 nothing is left of the profile"):
        Remove(1)(Profile("Slow trains."))


@pytest.mark.parametrize("text", ["a=", "musicals=0,5", "musicals=high", "a=b"])
def test_a_request_whose_weight_is_no_number_is_refused(text):
    with pytest.raises(InputError, match="is no request: write TEXT or TEXT=WEIGHT"):
        edits_of(request=[text])


@pytest.mark.parametrize("edit", [Rewrite, Request])
def test_what_nobody_can_see_is_empty_and_half_a_character_is_no_text(edit):
    with pytest.raises(InputError, match="empty"):
        edit("\u200b \n")(PROFILE)
    with pytest.raises(InputError, match="character 5 of the text .* is only a part of one"):
        edit("cats\udcff")(PROFILE)


def test_edits_as_they_are_typed():
    assert edits_of(rewrite="Cats.", request=["a=b=1", "trains=-0.5"]) == [
        Rewrite("Cats."),
        Request("a=b"),
        Request("trains", -0.5),
    ]
    assert edits_of(remove=[1, 3, 1], weigh=["2=0.5"]) == [Weigh(2, 0.5), Remove(3), Remove(1)]
    assert edits_of(instruct="less horror") == []
    edited = PROFILE
    for edit in edits_of(remove=[1, 3], weigh=["2=2"]):
        edited = edit(edited)
    assert edited == Profile("Loud cats.", {"Loud cats.": 2.0})


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({}, "there is no edit"),
        ({"rewrite": "a", "instruct": "b"}, "rewrite and instruct do not go together"),
        ({"instruct": "a", "remove": [1]}, "instruct and remove do not go together"),
        ({"rewrite": "a", "weigh": ["1=2"]}, "rewrite and weigh do not go together"),
        ({"weigh": ["2"]}, "'2' is no weight of a sentence: write NUMBER=WEIGHT, such as 2=0.5"),
        ({"weigh": ["two=2"]}, "'two=2' is no weight"),
    ],
)
def test_edits_that_make_no_sense_are_refused(typed, message):
    with pytest.raises(InputError, match=message):
        edits_of(**typed)
