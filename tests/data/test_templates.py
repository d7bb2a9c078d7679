"""The texts that models read, against appendix B of the paper."""

import pytest

from langptune_rs.data.templates import Item, PromptStyle, Template, history_entry, make_template
from langptune_rs.data.text import clean, shorten
from langptune_rs.errors import DataError

PAPER_INSTRUCTION = (
    "The user has rated (out of 5.0) and reviewed following movies and TV shows arranged chronologically from the "
    "oldest (top) to the newest (bottom). Please provide a high-level summary of the user preference in detail."
)
MARTIAN = Item(
    title="The Martian",
    description="From legendary director Ridley Scott (Alien, Prometheus) comes a gripping tale of human strength.",
    categories=["Science Fiction", "Drama", "Anxious", "Biting"],
    price="4.99",
    average_rating=4.8,
)
MARTIAN_TEXT = """\
Title: The Martian
Description: (average rating: 4.8) From legendary director Ridley Scott (Alien, Prometheus) comes a gripping tale of \
human strength.
Category: Science Fiction, Drama, Anxious, Biting
Price: 4.99"""


def test_items_and_reviews_are_written_as_in_the_paper():
    assert Template.item_text(MARTIAN) == MARTIAN_TEXT
    assert history_entry(MARTIAN_TEXT, 5.0, "A really good movie.") == (
        MARTIAN_TEXT + "\nReview from the user: (rating: 5.0) A really good movie."
    )


def test_the_instruction_is_the_paper_s_where_the_data_has_what_it_says():
    assert make_template("movies", has_ratings=True, has_reviews=True).instruction == PAPER_INSTRUCTION


@pytest.mark.parametrize(
    ("name", "has_ratings", "has_reviews", "beginning"),
    [
        ("movies", True, False, "The user has rated (out of 5.0) the following movies and TV shows arranged"),
        ("movies", False, True, "The user has reviewed the following movies and TV shows arranged"),
        ("products", False, False, "The user has bought the following products arranged"),
        ("generic", False, False, "The user has chosen the following items arranged"),
    ],
)
def test_the_instruction_claims_nothing_that_the_data_lacks(name, has_ratings, has_reviews, beginning):
    template = make_template(name, has_ratings=has_ratings, has_reviews=has_reviews)
    assert template.instruction.startswith(beginning)
    assert template.instruction.endswith(PAPER_INSTRUCTION[PAPER_INSTRUCTION.index(" arranged") :])


def test_an_unknown_template_is_refused():
    with pytest.raises(DataError, match=r"no template 'films'\. Choose one of movies, products, generic"):
        make_template("films", has_ratings=True, has_reviews=True)


@pytest.mark.parametrize(
    ("item", "text", "title"),
    [
        (Item(title="T"), "Title: T", "T"),
        (Item(description="D"), "Description: D", "D"),
        (Item(categories=["A", "B"]), "Category: A, B", "A, B"),
        (Item(title="T", average_rating=4.0), "Title: T\nDescription: (average rating: 4.0)", "T"),
        (Item(description="word " * 40), "Description: " + "word " * 40, "word " * 11 + "word…"),
    ],
)
def test_missing_fields_are_left_out(item, text, title):
    assert Template.item_text(item) == text
    assert Template.item_title(item) == title


@pytest.mark.parametrize(
    ("rating", "review", "said"),
    [
        (4.1, None, "\nReview from the user: (rating: 4.1)"),
        (2.25, "", "\nReview from the user: (rating: 2.25)"),
        (None, "Good.", "\nReview from the user: Good."),
        (0.0, "Bad.", "\nReview from the user: (rating: 0.0) Bad."),
        (None, None, ""),
    ],
)
def test_what_the_user_did_not_say_is_left_out(rating, review, said):
    assert history_entry("Title: T", rating, review) == "Title: T" + said


def test_a_prompt_is_instruction_history_and_closing():
    template = make_template("generic", has_ratings=False, has_reviews=False)
    assert template.prompt(["A", "B"]) == f"{template.instruction}\n\nA\n\nB"
    assert template.prompt(["A"], PromptStyle(instruction="Say.", closing="Now:")) == "Say.\n\nA\n\nNow:"


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Laurel &amp; Hardy", "Laurel & Hardy"),
        ("bad.<br /><br />I'm  learning\n<b>that</b>", "bad. I'm learning that"),
        ("3 < 4 > 2 <3", "3 < 4 > 2 <3"),
        (" \t\r\n", ""),
        ("caf\u00e9 \U0001f600 \ud83d", "caf\u00e9 \U0001f600"),
    ],
)
def test_text_from_the_web_is_cleaned(raw, cleaned):
    assert clean(raw) == cleaned


@pytest.mark.parametrize(
    ("text", "short"), [("ten chars!", "ten chars!"), ("one two three", "one two…"), ("x" * 12, "x" * 10 + "…")]
)
def test_texts_are_shortened_between_words(text, short):
    assert shorten(text, 10) == short
