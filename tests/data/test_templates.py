"""The texts that models read, against appendix B of the paper and against the same words in plain Python."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config.data import TEMPLATES, DataConfig
from langptune_rs.data import load
from langptune_rs.data.wording import templates
from langptune_rs.data.wording.templates import Item, PromptStyle, domain_of, item_title, make_template
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

WORDS = {
    "movies": ("movies and TV shows", "watched"),
    "products": ("products", "bought"),
    "generic": ("items", "chosen"),
    "books": ("books", "read"),
    "games": ("video games", "played"),
    "music": ("albums and songs", "listened to"),
    "paper": ("movies and TV shows", "watched"),
}

TEMPLATES_IN_TEXT = ["{{ 7 * 7 }}", "{% raw %}", "{# no", "{{ item.title.__class__ }}{% endfor %}", "%(title)s {0}"]
TEXTS = st.text(st.characters() | st.sampled_from("\n\r &<>{}%#\"'"), max_size=80) | st.sampled_from(TEMPLATES_IN_TEXT)
NUMBERS = st.floats(0, 5) | st.integers(0, 5)
ITEMS = st.builds(
    Item,
    title=st.none() | TEXTS,
    description=st.none() | TEXTS,
    categories=st.lists(TEXTS, max_size=3),
    price=st.none() | TEXTS,
    average_rating=st.none() | NUMBERS,
)


def built_in(name, has_ratings=True, has_reviews=True):
    return make_template(name, has_ratings=has_ratings, has_reviews=has_reviews)


ALL = {name: built_in(name) for name in TEMPLATES}


def expected_item_text(item: Item) -> str:
    rating = None if item.average_rating is None else f"(average rating: {round(item.average_rating, 2)})"
    fields = {
        "Title": item.title,
        "Description": " ".join(part for part in (rating, item.description) if part),
        "Category": ", ".join(item.categories),
        "Price": item.price,
    }
    return "\n".join(f"{label}: {value}" for label, value in fields.items() if value)


def expected_item_line(name: str, item: Item) -> str:
    title = item.title or item_title(item)
    if name == "products" and item.title:
        before = re.split(r", | \(", item.title)[0]
        title = " ".join(before.split()[:8]) or item.title
    return f"- {title}: {', '.join(item.categories)}" if item.categories and item.title else f"- {title}"


def expected_entry(text, rating, review, history_text):
    said = " ".join(part for part in ("" if rating is None else f"(rating: {round(rating, 2)})", review) if part)
    between = "\nReview from the user: " if history_text == "full" else " "
    return f"{text}{between}{said}" if said else text


def expected_instruction(name, has_ratings, has_reviews):
    things, contact = WORDS[name]
    if has_ratings and has_reviews:
        did = "rated (out of 5.0) and reviewed"
    else:
        did = ("rated (out of 5.0)" if has_ratings else "reviewed" if has_reviews else contact) + " the"
    return f"The user has {did} following {things}{PAPER_INSTRUCTION[PAPER_INSTRUCTION.index(' arranged') :]}"


def expected_paper_text(item: Item) -> str:
    rating = None if item.average_rating is None else round(item.average_rating, 2)
    return (
        f"Title: {item.title or None}\nDescription: (average rating: {rating}) {item.description or None}\n"
        f"Category: {', '.join(item.categories) or None}\nPrice: {item.price or None}"
    )


@given(ITEMS)
def test_items_are_worded_as_in_python(item):
    for name, template in ALL.items():
        assert template.item_text(item) == (expected_paper_text if name == "paper" else expected_item_text)(item)
        assert template.item_line(item) == expected_item_line(name, item)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("AmazonBasics Permanent Markers, Black, 12-Pack", "AmazonBasics Permanent Markers"),
        ("PM Company 02835 Paper Roll Rack", "PM Company 02835 Paper Roll Rack"),
        ("HP 971XL Ink (CN626AM) for X451", "HP 971XL Ink"),
        ("Paper, 1,000 Sheets", "Paper"),
        ("1,000 Sheets of Paper", "1,000 Sheets of Paper"),
        ("one two three four five six seven eight nine", "one two three four five six seven eight"),
        (", Black", ", Black"),
        ("(2 Pack) Tape", "(2 Pack) Tape"),
    ],
)
def test_a_line_has_the_name_of_a_product(title, name):
    assert built_in("products").item_line(Item(title=title)) == f"- {name}"
    assert title in built_in("products").item_text(Item(title=title))


@given(TEXTS, st.none() | NUMBERS, st.none() | TEXTS, st.sampled_from(["full", "brief"]))
def test_history_entries_are_worded_as_in_python(text, rating, review, history_text):
    for template in ALL.values():
        entry = template.history_entry(text, rating, review, history_text)
        assert entry == expected_entry(text, rating, review, history_text)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("has_ratings", [True, False])
@pytest.mark.parametrize("has_reviews", [True, False])
def test_instructions_are_worded_as_in_python(name, has_ratings, has_reviews):
    template = built_in(name, has_ratings, has_reviews)
    assert template.instruction == expected_instruction(name, has_ratings, has_reviews)
    assert (template.name, template.source) == (name, None)


def test_every_file_of_words_is_a_template():
    files = Path(templates.__file__).parent.glob("*.jinja")
    assert {file.name for file in files} == {"base.jinja", *(f"{name}.jinja" for name in TEMPLATES)}


def test_items_and_reviews_are_written_as_in_the_paper():
    for name in ("movies", "paper"):
        assert ALL[name].item_text(MARTIAN) == MARTIAN_TEXT
        assert ALL[name].history_entry(MARTIAN_TEXT, 5.0, "A really good movie.") == (
            MARTIAN_TEXT + "\nReview from the user: (rating: 5.0) A really good movie."
        )


def test_the_paper_s_exact_form_says_none_and_no_other_does():
    firm = Item("The Firm: The Complete Series", None, ["Movies & TV", "Drama"], None, 4.3)
    assert ALL["paper"].item_text(firm) == (
        "Title: The Firm: The Complete Series\nDescription: (average rating: 4.3) None\nCategory: Movies & TV, Drama\n"
        "Price: None"
    )
    assert ALL["movies"].item_text(firm) == (
        "Title: The Firm: The Complete Series\nDescription: (average rating: 4.3)\nCategory: Movies & TV, Drama"
    )


def test_the_instruction_is_the_paper_s_where_the_data_has_what_it_says():
    assert ALL["movies"].instruction == ALL["paper"].instruction == PAPER_INSTRUCTION


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
    assert ALL["generic"].item_text(item) == text
    assert item_title(item) == title


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
    assert ALL["generic"].history_entry("Title: T", rating, review) == "Title: T" + said


def test_a_prompt_is_instruction_history_and_closing():
    template = make_template("generic", has_ratings=False, has_reviews=False)
    assert template.prompt(["A", "B"]) == f"{template.instruction}\n\nA\n\nB"
    assert template.prompt(["A"], PromptStyle(instruction="Say.", closing="Now:")) == "Say.\n\nA\n\nNow:"


BOARD_GAMES = """\
{% extends "products.jinja" %}
{% set things = "board games" %}
{% macro _name(item) %}{{ item_title(item) | upper }}{% endmacro %}
{% macro item_text(item) %}
{{ _name(item) }}
{% if item.price %}
Only {{ item.price }}
{% endif %}
{% endmacro %}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a template file and returns its path as text."""

    def write(source, name="mine.jinja"):
        (tmp_path / name).write_bytes(source if isinstance(source, bytes) else source.encode())
        return str(tmp_path / name)

    return write


def test_a_file_changes_what_it_defines_and_nothing_else(write):
    mine = built_in(write(BOARD_GAMES), has_ratings=False, has_reviews=False)
    assert mine.instruction.startswith("The user has bought the following board games arranged")
    assert mine.item_text(Item("Go", price="9")) == "GO\nOnly 9"
    assert mine.item_text(Item(description="Old")) == "OLD"
    assert mine.item_line(MARTIAN) == ALL["generic"].item_line(MARTIAN)
    assert mine.history_entry("GO", 4.0, None) == "GO\nReview from the user: (rating: 4.0)"


@pytest.mark.parametrize(
    ("source", "reads_as"),
    [
        ('{% extends "paper.jinja" %}', "paper"),
        ('{% extends "base.jinja" %}', "generic"),
        ('{% from "paper.jinja" import item_text, things %}{% set contact = "watched" %}', "paper"),
        ('{% set things = "books" %}\n{% set contact = "read" %}', "books"),
        (
            '{% extends "movies.jinja" %}{% import "paper.jinja" as paper %}'
            "{% macro item_text(item) %}{{ paper.item_text(item) }}{% endmacro %}",
            "paper",
        ),
        ("\ufeff{% set things = 'books' %}\r\n{% set contact = 'read' %}\r\n", "books"),
    ],
)
@pytest.mark.parametrize("has_ratings", [True, False])
def test_a_file_may_start_from_a_built_in_template(write, source, reads_as, has_ratings):
    mine, theirs = built_in(write(source), has_ratings, False), built_in(reads_as, has_ratings, False)
    assert mine.instruction == theirs.instruction
    for item in (MARTIAN, Item(title="T"), Item(description="D", average_rating=3.0)):
        assert mine.item_text(item).removesuffix("\n") == theirs.item_text(item)
        assert mine.item_line(item) == theirs.item_line(item)


def test_a_template_is_made_again_of_its_source(write, tmp_path):
    path = write(BOARD_GAMES)
    mine = built_in(path)
    assert (mine.name, mine.source) == (path, BOARD_GAMES)
    (tmp_path / "mine.jinja").unlink()
    again = make_template(path, has_ratings=True, has_reviews=True, source=mine.source)
    assert again == mine
    assert again.item_text(MARTIAN) == mine.item_text(MARTIAN)


def macro(body, head="item_text(item)"):
    return f"{{% macro {head} %}}\n{body}\n{{% endmacro %}}\n"


@pytest.mark.parametrize(
    ("source", "line", "problem"),
    [
        ("\n{% macro item_text(item) %}", 2, "Unexpected end of template"),
        ("\n\n{{ item", 3, "unexpected end of template"),
        (macro("{{ item.title | upcase }}"), 2, "No filter named 'upcase'"),
        (
            macro("{{ item.titel }}"),
            2,
            "item_text() fails. UndefinedError: 'langptune_rs.data.wording.templates.Item object' has",
        ),
        (macro("\n{{ colour }}"), 3, "item_text() fails. UndefinedError: 'colour' is undefined"),
        ("{{ item.title }}" + macro("x"), 1, "outside of its macros fails. UndefinedError: 'item' is undefined"),
        (macro("\n\n{{ item.title + 1 }}"), 4, "item_text() fails. TypeError: "),
        (macro("{{ 1 / 0 }}", "item_line(item)"), 2, "item_line() fails. ZeroDivisionError: division by zero"),
        (macro("{{ item.price }}"), 2, "item_text() fails. ValueError: what is missing here for some items"),
        (macro("{{ item.__class__.__mro__ }}"), 2, "item_text() fails. SecurityError: access to attribute '__class__'"),
        (macro("{{ item.categories.append('x') }}"), 2, "item_text() fails. SecurityError: "),
        (macro("{{ 'x' * 2 }}{% for i in range(10 ** 9) %}{% endfor %}"), 2, "item_text() fails. OverflowError: "),
        (
            macro("{{ rating | round }}", "history_entry(text, rating, review, brief)"),
            2,
            "history_entry() fails. TypeE",
        ),
        (macro("x", "item_text()"), 1, "other parameters than it is given. Write {% macro item_text(item) %}."),
        (macro("x", "history_entry(text, review, rating, brief)"), 1, "Write {% macro history_entry(text, rating, rev"),
        (macro("x", "item_txt(item)"), 1, "'item_txt' is nothing that a template has. Did you mean 'item_text'?"),
        ("\n{% set thing = 'x' %}", 2, "'thing' is nothing that a template has. Did you mean 'things'?"),
        ("{% set item_text = 'x' %}", 1, "'item_text' is nothing that a template has."),
        ('\n{% extends "other.jinja" %}', 2, "only a template that comes with the package can be extended: base.jinja"),
        ("{% extends things %}", 1, "only a template that comes with the package can be extended"),
        (
            '{% import "other.jinja" as o %}' + macro("x"),
            1,
            "fails. there is no 'other.jinja' among base.jinja, movies",
        ),
        (
            macro("{% if item.price %}{{ item.price }}{% endif %}", "item_line(item)").replace("price", "cost"),
            2,
            "'cost'",
        ),
        ("Title: {{ 'title' }}", None, "defines nothing. A template defines some of instruction, item_text"),
        ("", None, "defines nothing"),
        (macro("  "), None, "the macro item_text writes nothing"),
        (b"{% set things = 'caf\xe9' %}", None, "is not UTF-8 at byte 21. Save it as UTF-8."),
    ],
)
def test_a_broken_file_is_named_with_line_and_reason(write, source, line, problem):
    path = write(source)
    with pytest.raises(DataError) as caught:
        built_in(path)
    message = str(caught.value)
    assert message.startswith(path if line is None else f"{path}, line {line}: ")
    assert problem in message


def test_a_macro_that_fails_on_one_item_names_the_line(write):
    path = write(macro("\n{{ 'Long' if 1 / (item_title(item) | length - 7) else '' }}"))
    mine = built_in(path)
    assert mine.item_text(Item(title="short")) == "\nLong"
    with pytest.raises(DataError, match=r"mine\.jinja, line 3: item_text\(\) fails\. ZeroDivisionError"):
        mine.item_text(Item(title="Seven c"))


@pytest.fixture
def prepare(monkeypatch, tmp_path, logs):
    """`langptune data prepare` of small logs with a template."""
    monkeypatch.chdir(tmp_path)
    unlimited = ("--max-item-tokens", "0", "--max-history-tokens", "0")
    return lambda template: CliRunner().invoke(
        app, ["data", "prepare", str(logs), "out", "--template", template, *unlimited]
    )


def test_a_file_is_given_on_the_command_line(prepare, write, tmp_path):
    write(BOARD_GAMES)
    result = prepare("mine.jinja")
    assert result.exit_code == 0, result.stderr
    data = load(tmp_path / "out")
    assert data.catalog.texts[0] == "ITEM 0"
    assert "reviewed following board games" in data.prompt(data.sessions, 0)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("films", "there is no template 'films'; choose one of movies, "),
        ("gone.jinja", "There is no template file gone.jinja."),
        ("mine.jinja", "mine.jinja, line 2: item_text() fails. UndefinedError: 'colour' is undefined."),
    ],
)
def test_a_wrong_template_on_the_command_line_is_named(prepare, write, tmp_path, template, message):
    write(macro("{{ colour }}"))
    result = prepare(template)
    assert (result.exit_code, result.stdout, (tmp_path / "out").exists()) == (2, "", False)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no template file .*gone\.jinja\. .*movies, products"):
        built_in(str(tmp_path / "gone.jinja"))


@pytest.mark.parametrize(("template", "ok"), [("paper", True), ("x/mine.jinja", True), ("films", False), ("", False)])
def test_a_recipe_names_a_template_or_a_file(template, ok):
    if ok:
        assert DataConfig(template=template).template == template
    else:
        with pytest.raises(
            ValueError, match=rf"there is no template '{template}'; choose one of movies, .*\.jinja file"
        ):
            DataConfig(template=template)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("Movies_and_TV.jsonl.gz", "movies"),
        ("meta_Movies_and_TV.jsonl", "movies"),
        ("Movies & TV", "movies"),
        ("reviews_Amazon_Instant_Video_5.json.gz", "movies"),
        ("Books.jsonl", "books"),
        ("Books_5.json.gz", "books"),
        ("meta_Kindle_Store.jsonl.gz", "books"),
        ("Video_Games.jsonl.gz", "games"),
        ("reviews_CDs_and_Vinyl.json.gz", "music"),
        ("Digital_Music.jsonl", "music"),
        ("Toys_and_Games.jsonl.gz", "products"),
        ("Musical_Instruments.jsonl", "products"),
        ("Notebooks.jsonl", "products"),
        ("Books/Electronics.jsonl", "products"),
        ("", "products"),
    ],
)
def test_the_domain_is_read_from_the_name_of_a_category(name, domain):
    assert domain_of(name) == domain
