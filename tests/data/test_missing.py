"""Missing values and lists as writers of tables put them into text."""

import csv
import io
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.readers import blocks, separated
from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.readers.listed import listed
from langptune_rs.data.readers.python_values import parse_python
from langptune_rs.data.readers.reader import INTERACTION_SCHEMA, ITEM_SCHEMA, read_all
from langptune_rs.data.sources.files import Files
from langptune_rs.data.sources.registry import find_source
from langptune_rs.errors import DataError

FORMS = ("csv", "tsv", "jsonl", "parquet", "recbole")
ITEM_COLUMNS = [name for name in ITEM_SCHEMA if name != "line"]
INTERACTION_COLUMNS = [name for name in INTERACTION_SCHEMA if name != "line"]
# What pandas reads as missing without being told: pandas._libs.parsers.STR_NA_VALUES but the empty text.
PANDAS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)


@pytest.fixture
def read(tmp_path):
    """`read(form, items, interactions)` writes rows whose values are all texts or None, and reads them again."""

    def read(form, items, interactions=(), bad=None):
        for role, rows, columns in (
            ("items", items, ITEM_COLUMNS),
            ("interactions", interactions, INTERACTION_COLUMNS),
        ):
            write(tmp_path, form, role, rows, columns)
        source = "csv" if form == "tsv" else form
        logs = find_source(source, Files(tmp_path)).logs
        return [
            read_all(reader, schema, bad).drop("line").to_dicts()
            for reader, schema in ((logs.items, ITEM_SCHEMA), (logs.interactions, INTERACTION_SCHEMA))
        ]

    return read


def write(folder, form, role, rows, columns):
    there = [name for name in columns if any(name in row for row in rows)] or columns
    if form == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{role}.jsonl").write_text(text, encoding="utf-8")
    elif form == "parquet":
        table = pl.DataFrame(
            [{name: row.get(name) for name in there} for row in rows], schema=dict.fromkeys(there, pl.String)
        )
        numbers = [name for name in there if name in ("rating", "timestamp", "position", "average_rating")]
        table.with_columns(pl.col(numbers).cast(pl.Float64, strict=False)).write_parquet(folder / f"{role}.parquet")
    else:
        told = io.StringIO()
        names = [f"{name}:token" for name in there] if form == "recbole" else there
        lines = [names, *([row.get(name) or "" for name in there] for row in rows)]
        csv.writer(told, delimiter="," if form == "csv" else "\t", lineterminator="\n").writerows(lines)
        suffix = {"recbole": "item" if role == "items" else "inter"}.get(form, form)
        (folder / f"{role}.{suffix}").write_text(told.getvalue(), encoding="utf-8")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("word", PANDAS)
def test_a_word_that_pandas_reads_as_missing_is_no_value(read, form, word):
    rows = [
        {"item_id": "a", "title": "A", "description": "d", "categories": "x", "price": "$3", "average_rating": "4"},
        {"item_id": "b", "title": word} | dict.fromkeys(("description", "categories", "price", "average_rating"), word),
        {"item_id": word, "title": word},
    ]
    given = {"user_id": "u", "item_id": "a", "rating": word, "timestamp": word, "review_text": word}
    if form == "jsonl":
        rows[0]["average_rating"] = 4
    items, (interaction,) = read(form, rows, [given])
    nothing = {"title": None, "description": None, "categories": [], "price": None, "average_rating": None}
    assert items[0] == {"item_id": "a", "title": "A", "description": "d", "categories": ["x"], "price": "$3"} | {
        "average_rating": 4.0
    }
    assert items[1] == {"item_id": "b"} | nothing
    assert items[2]["item_id"] == word  # whatever identifies something is an id
    assert interaction == {"user_id": "u", "item_id": "a", "rating": None, "timestamp": None} | {
        "position": None,
        "review_text": None,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("word", ["None", "NA", "N/A", "null"])
def test_a_title_is_none_where_missing_titles_are_blank(read, form, word):
    items, _ = read(form, [{"item_id": "a", "title": word}, {"item_id": "b"}, {"item_id": "c", "title": "nan"}])
    assert [item["title"] for item in items] == [word, None, None]


@pytest.mark.parametrize(("form", "title"), [("csv", None), ("recbole", None), ("jsonl", "None"), ("parquet", "None")])
def test_an_only_title_is_one_where_a_null_is_possible(read, form, title):
    rows = [{"item_id": "a", "title": "None"}, {"item_id": "b", "title": "B"}]
    assert [item["title"] for item in read(form, rows)[0]] == [title, "B"]


def test_a_title_in_quotes_is_a_title(tmp_path):
    """R writes a missing value as NA, and texts in quotes."""
    text = '"item_id","title","description"\n"a","NA","NA"\n"b",NA,NA\n"c","None, or all","x ""y"""\n"d",None,\n'
    (tmp_path / "items.csv").write_text(text, encoding="utf-8")
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu,a\n", encoding="utf-8")
    items = read_all(find_source(tmp_path).logs.items, ITEM_SCHEMA)
    assert items["title"].to_list() == ["NA", None, "None, or all", None]
    assert items["description"].to_list() == [None, None, 'x "y"', None]


QUOTED = [
    ("every title in quotes", '"a","None","NA"\n"b","B","x"\n"c","nan","y"\n', [None, "B", None]),
    ("a blank among them", '"a","None","x"\n"b","","x"\n', ["None", None]),
    ("a null among them", '"a","None","x"\n"b",,"x"\n', ["None", None]),
    ("a bare word for a missing one", '"a","NA","x"\n"b",NA,"x"\n"c","C",\\N\n', ["NA", None, "C"]),
    ("another bare word", '"a","NA","x"\n"b",\\N,"x"\n', ["NA", None]),
    ("bare titles", 'a,"None",x\nb,B,y\nc,None,z\n', ["None", "B", None]),
    ("numbers are bare where texts never are", '1,"None","x"\n2,1917,"x"\n3,"B","x"\n', [None, "1917", "B"]),
    ("a bare number that is missing", '1,"None","x"\n2,nan,"x"\n3,"B","x"\n', ["None", None, "B"]),
    ("quotes out of place", 'a,"None",x"y\nb,B,y\nc,None,z\n', ["None", "B", None]),
    ("quotes out of place, all in quotes", 'a,"None",x"y\nb,"B",y\nc,"None",z\n', [None, "B", None]),
    ("fields over lines", 'a,"None","x\ny"\nb,B,"y, z"\n\nc,"NA ",z\n', ["None", "B", "NA"]),
]


@pytest.mark.parametrize("block_bytes", [1, 40, 8 << 20])
@pytest.mark.parametrize(("rows", "titles"), [case[1:] for case in QUOTED], ids=[case[0] for case in QUOTED])
def test_quotes_tell_a_title_where_not_all_have_them(tmp_path, monkeypatch, block_bytes, rows, titles):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    (tmp_path / "items.csv").write_text("item_id,title,description\n" + rows, encoding="utf-8")
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu,a\n", encoding="utf-8")
    items = read_all(find_source(tmp_path).logs.items, ITEM_SCHEMA)
    assert items["title"].to_list() == titles
    (tmp_path / "items.csv").write_text("title,item_id\n" + "".join(f'"{t or "None"}","{t}"\n' for t in titles))
    items = read_all(find_source(tmp_path).logs.items, ITEM_SCHEMA)
    assert items["title"].to_list() == [None if t in (None, "None", "NA") else t for t in titles]


def test_a_word_in_quotes_leaves_its_block_to_polars(tmp_path, monkeypatch):
    """A block that is split in Python takes many times as long."""
    monkeypatch.setattr(separated._Parser, "_one_by_one", None)
    rows = '"NA","None","NA"\n"b",B,NA\n"None","C, ""d""",\n'
    (tmp_path / "items.csv").write_text("item_id,title,description\n" + rows, encoding="utf-8")
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu,b\n", encoding="utf-8")
    items = read_all(find_source(tmp_path).logs.items, ITEM_SCHEMA)
    assert items["title"].to_list() == ["None", "B", 'C, "d"']


def test_other_numbers_are_still_refused(read):
    for form in ("csv", "jsonl"):
        for word in ("five", "inf", "?", "Nano"):
            with pytest.raises(DataError, match=r"rating = .* is no number"):
                read(form, [{"item_id": "a"}], [{"user_id": "u", "item_id": "a", "rating": word}])
        bad = BadLines("skip")
        assert read(form, [{"item_id": "a"}], [{"user_id": "u", "item_id": "a", "rating": "five"}], bad)[1] == []
        assert bad.num_rows == 1


LISTS = [
    *[("[]", []), ("{}", []), ("()", []), ("[ ]", []), ("set()", []), ("[nan]", []), ("[None]", []), ("['']", [])],
    *[("['Fiction', 'Birch']", ["Fiction", "Birch"]), ('["a","b"]', ["a", "b"]), ("('a', 'b')", ["a", "b"])],
    *[("['a' 'b c']", ["a", "b c"]), ("['a'\n 'b']", ["a", "b"]), ("array(['a', 'b'], dtype=object)", ["a", "b"])],
    *[
        ("{'b', 'a'}", ["a", "b"]),
        ("['a', nan]", ["a"]),
        ("[\"it's\", 'x']", ["it's", "x"]),
        ("[28, 12]", ["28", "12"]),
    ],
    *[('[["Books", "Cooking"]]', ["Books", "Cooking"]), ("[{'id': 1, 'name': 'War'}]", ["War"])],
    *[('{War,"Science fiction",NULL}', ["War", "Science fiction"]), ("[Action, Drama]", ["Action", "Drama"])],
    *[('["\\ud83d\\ude00", "a\\/b"]', ["\U0001f600", "a/b"]), ("['caf\\xe9 &amp; bar']", ["caf\xe9 & bar"])],
    *[
        ("[Drama]", ["Drama"]),
        ("[Children's, Comedy]", ["Children's", "Comedy"]),
        ("[Action|Drama]", ["Action", "Drama"]),
    ],
    *[("{Children's,Comedy}", ["Children's", "Comedy"]), ("[Action, None]", ["Action"]), ("[N/A]", [])],
    *[("{{}}", ["{{}}"]), ("{['a'], 'b'}", ["{['a'], 'b'}"]), ("[{[]: 1}]", ["[{[]: 1}]"])],
    *[("(no genres listed)", ["(no genres listed)"]), ("['a', 'b'", ["['a', 'b'"])],
    *[("{a: b}", ["{a: b}"]), ("(2001)", ["(2001)"]), ("C++ [x]", ["C++ [x]"]), ("['NA', 'EU']", ["NA", "EU"])],
]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("text", "expected"), LISTS)
def test_a_list_in_text_is_a_list(read, form, text, expected):
    items, _ = read(form, [{"item_id": "a", "categories": text, "description": text}])
    assert items[0]["categories"] == expected


def test_descriptions_in_a_list_are_one_text(read):
    told = ["['One.', 'Two.']", "[]", "[Blu-ray, DVD] A film.", "[Imported, sealed]", "[sealed]"]
    rows = [{"item_id": str(i), "description": text} for i, text in enumerate(told)]
    for form in ("csv", "jsonl", "parquet"):
        found = [item["description"] for item in read(form, rows)[0]]
        assert found == ["One. Two.", None, "[Blu-ray, DVD] A film.", "[Imported, sealed]", "[sealed]"]


def test_words_in_brackets_are_words(tmp_path):
    """RecBole's lists have blanks between their words."""
    (tmp_path / "x.item").write_text("item_id:token\tcategories:token_seq\n1\t[War Drama]\n2\t['Science fiction']\n")
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\nu\t1\n")
    items = read_all(find_source(tmp_path).logs.items, ITEM_SCHEMA)
    assert items["categories"].to_list() == [["War", "Drama"], ["Science fiction"]]


@pytest.mark.parametrize(
    "text",
    [
        *("{{}}", "{[]}", "{['a'], 'b'}", "{[]: 1}", "{**{}}", "[0x" + "f" * 5000 + "]", "9" * 5000, "\x00", "x"),
        *(
            "[" * 100_000,
            "(" * 1000,
            "-" * 5000 + "1",
            "1+" * 5000 + "1",
            "['\\N{no such}']",
            "{1: {(1, []): 2}}",
            "set([])",
        ),
    ],
    ids=lambda text: text[:16],
)
def test_what_is_no_literal_is_an_error_of_one_kind(text):
    with pytest.raises(ValueError, match="."):
        parse_python(text)
    found = listed(text, bare=True)  # as a text that is no literal, which may still be a list of a database
    assert found is None or all(isinstance(part, str) for part in found)


@pytest.mark.parametrize("depth", [10, 150, 300, 600, 900, 1_000, 10_000])
def test_lists_in_lists_are_read_or_left_at_any_depth(depth):
    assert listed("[" * depth + "'a'" + "]" * depth) in (["a"], None)
    assert listed("[" * depth + '"a"' + "]" * depth) in (["a"], None)


PYTHON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=3),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=3) | st.tuples(st.integers()), parts),
    max_leaves=8,
)


@given(
    PYTHON, st.sampled_from([repr, str, json.dumps]), st.integers(0, 40), st.sampled_from(["", "{", "[]", "{[", "'"])
)
def test_a_damaged_value_is_a_list_or_is_not(value, write, place, put):
    try:
        text = write(value)
    except TypeError:
        text = repr(value)
    damaged = text[:place] + put + text[place:]
    for bare in (True, False):
        found = listed(damaged, bare=bare)
        assert found is None or all(isinstance(part, str) for part in found)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: bool(text.strip()) and text.strip() not in PANDAS
)


@given(st.lists(TEXTS, max_size=4))
def test_what_python_and_json_write_is_read_back(texts):
    for written in (repr(texts), str(tuple(texts)) if len(texts) > 1 else "()" if not texts else repr(texts)):
        assert listed(written) == texts
    assert listed(json.dumps(texts)) == listed(json.dumps(texts, ensure_ascii=False)) == texts


@given(st.text(st.sampled_from("[](){}'\"\\,:aN 1|"), max_size=12))
def test_any_text_is_a_list_or_is_not(text):
    for bare in (True, False):
        found = listed(text, bare=bare)
        assert found is None or all(isinstance(part, str) and part.strip() for part in found)
