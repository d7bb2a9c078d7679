"""Readers of separated text and parquet: lines, widths, quotes, encodings, and that all forms say the same."""

import csv
import gzip
import io
import json
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from langptune_rs.data.readers import blocks, gzip_stream, json_lines, parquet, separated
from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.readers.form import Form, read_form
from langptune_rs.data.readers.parquet import ParquetFile
from langptune_rs.data.readers.reader import INTERACTION_SCHEMA, ITEM_SCHEMA, Request, read_all
from langptune_rs.data.readers.separated import SeparatedFile
from langptune_rs.data.readers.values import in_seconds
from langptune_rs.data.sources.files import Files
from langptune_rs.data.sources.registry import find_source
from langptune_rs.errors import DataError

INTERACTIONS = {
    "user_id": ("user", "identifier"),
    "item_id": ("item", "identifier"),
    "rating": ("rating", "number"),
    "review_text": ("review", "text"),
}
HEADER = "user,item,rating,review\n"


@pytest.fixture
def read(tmp_path):
    """Write a file and read all of it: `read(text, bad=..., lines=...)`."""

    def read(text, bad=None, **options):
        file = tmp_path / "log.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_file(file, bad, **options)

    return read


def read_file(file, bad=None, columns=tuple(INTERACTIONS), **options):
    reader = SeparatedFile(file, read_form(file), INTERACTIONS)
    frames = list(reader.chunks(Request(columns, bad or BadLines(), **options)))
    return [row for frame in frames for row in frame.rows()]


@pytest.fixture(params=[None, 1, 7, 64], ids="blocks of {} bytes".format)
def block_bytes(request, monkeypatch):
    """Rows that go over the ends of blocks are read as others."""
    if request.param:
        monkeypatch.setattr(blocks, "BLOCK_BYTES", request.param)


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_values_are_read_as_they_stand(read, block_bytes, separator, end):
    rows = [
        ["user", "item", "rating", "review"],
        ["007", "1.0", "4.5", "Fine"],
        ["NA", "null", "", ""],
        ["ü", 'a"b', " 3 ", f'two{end}lines, and "quotes"{separator} too'],
        ["1e5", "-0", "1e0", "  <b>A</b> &amp;\u00a0c "],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end).writerows(rows)
    assert read("\ufeff" + text.getvalue()) == [
        ("007", "1.0", 4.5, "Fine", 2),
        ("NA", "null", None, None, 3),
        ("ü", 'a"b', 3.0, f'two lines, and "quotes"{separator.strip()} too', 4),
        ("1e5", "-0", 1.0, "A & c", 6),
    ]


def test_lines_are_those_of_the_file(read, block_bytes):
    text = HEADER + '\n"a\n1",x,1,"r\n\n"\r\n\r\n   \nb,y,2,\nc,z,3,last'
    expected = [("a\n1", "x", 1.0, "r", 3), ("b", "y", 2.0, None, 9), ("c", "z", 3.0, "last", 10)]
    assert read(text) == expected
    assert read(text, lines=np.array([3, 10])) == [expected[0], expected[2]]
    assert read(text, lines=np.array([9]), columns=("review_text",)) == [(None, 9)]
    assert read(text, lines=np.array([], dtype=int)) == []
    assert read(text, columns=("position", "user_id"))[1] == (None, "b", 9)


WRONG = [
    ("u,i,5", r"3 fields where 4 are due: 'u,i,5'"),
    ("u,i,5,fine,more", r"5 fields where 4 are due"),
    ('u,"i\nj",5', r"3 fields where 4 are due"),
    (",i,5,fine", r"user is blank"),
    ("u, ,5,fine", r"item is blank"),
    ("u,\u3000,5,fine", r"item is blank"),
    ("u,i,five,fine", r"rating = 'five' is no number"),
    ("u,i,inf,fine", r"rating = 'inf' is no number"),
    ("u,i,true,fine", r"rating = 'true' is no number"),
    ('u,"i"x,5,fine', r"a quote is not closed, or more follows it: 'u,\"i\"x,5,fine'"),
    ('u,"i,5,fine', r"a quote is not closed"),
    (b"u,i,5,\xe9t\xe9", r"not UTF-8 at byte 7"),
]


@pytest.mark.parametrize(("row", "problem"), WRONG)
def test_a_wrong_row_is_named_or_left_out(read, block_bytes, row, problem):
    row = row if isinstance(row, bytes) else row.encode()
    text = HEADER.encode() + b"a,b,1,\n" + row + b'\nc,d,2,"x, ""y"""\n'
    with pytest.raises(DataError, match=rf"log\.csv, line 3: {problem}"):
        read(text)
    bad = BadLines("skip")
    kept = [("a", "b", 1.0, None, 2), ("c", "d", 2.0, 'x, "y"', 4 + row.count(b"\n"))]
    assert read(text, bad) == kept
    assert (bad.num_rows, len(bad.first)) == (1, 1)
    again = BadLines("skip")
    assert read(text, again, lines=np.array([2, 4 + row.count(b"\n")])) == kept
    assert not again.num_rows


def test_a_row_too_long_does_not_make_up_for_one_too_short(read, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", len(HEADER))  # the header in a block, the rows in the next
    bad = BadLines("skip")
    assert read(HEADER + "a,b,1,\nc,d\ne,f,2,x,y,z\n", bad, columns=("user_id",)) == [("a", 2)]
    assert [text.partition("line ")[2][:1] for text in bad.first] == ["3", "4"]


def test_quotes_within_a_field_are_a_part_of_it(read, block_bytes):
    assert read(HEADER + 'u,5" disk,5,a 3" one\nv,"x, y",1,\n') == [
        ("u", '5" disk', 5.0, 'a 3" one', 2),
        ("v", "x, y", 1.0, None, 3),
    ]


def test_after_a_quote_that_is_never_closed_reading_goes_on(read, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(separated, "MAX_ROW_BYTES", 5000)
    bad = BadLines("skip")
    rows = read(HEADER + 'a,"b,1,\n' + "".join(f"u{i},i,2,\n" for i in range(5000)), bad)
    assert [row[0] for row in rows] == [f"u{i}" for i in range(5000)]
    assert len(bad.first) == 1


def test_a_field_of_a_megabyte_is_read(read):
    review = "word, " * 180_000
    assert read(HEADER + f'u,i,5,"{review}"\nv,i,,😀🎬\n') == [
        ("u", "i", 5.0, review.strip(), 2),
        ("v", "i", None, "😀🎬", 3),
    ]


def test_a_gzip_file_is_read_and_one_that_was_cut_is_refused(tmp_path):
    file = tmp_path / "log.csv.gz"
    text = HEADER + "".join(f"u{i},i,{i % 5},{i**5}\n" for i in range(2000))
    file.write_bytes(gzip.compress(text.encode()))
    assert len(read_file(file)) == 2000
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"log\.csv\.gz is not a complete gzip file"):
        read_file(file)
    file.write_bytes(b"user,item")
    with pytest.raises(DataError, match=r"log\.csv\.gz is not a complete gzip file"):
        read_file(file)


ROWS = "".join(f"u{i},i,{i % 5},{i**5}\n" for i in range(60))
PACKED = gzip.compress((HEADER + ROWS[: len(ROWS) // 2]).encode(), mtime=0)
AND_MORE = gzip.compress(ROWS[len(ROWS) // 2 :].encode(), mtime=0)


@pytest.mark.parametrize(("chunk", "block"), [(1, 200), (7, 8 << 20), (1 << 18, 200)])
@pytest.mark.parametrize(
    "behind", [b"", b"\r\n", b"\n", b"\0" * 5000, b"\x1a", b"\0\r\n \0", b"\x1f", b"<html>not found"]
)
def test_what_follows_a_gzip_file_is_left_out(tmp_path, monkeypatch, capsys, chunk, block, behind):
    monkeypatch.setattr(gzip_stream, "_CHUNK_BYTES", chunk)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block)
    for between in (b"", b"\0" * 100, b"\r\n"):
        file = tmp_path / f"log{len(between)}.csv.gz"
        file.write_bytes(PACKED + between + AND_MORE + behind)
        steps = []
        rows = read_file(file, advance=steps.append)
        assert ([row[:2] for row in rows], sum(steps)) == ([(f"u{i}", "i") for i in range(60)], file.stat().st_size)
        said = capsys.readouterr().err
        assert ("are left out; the data are whole" in said) <= bool(behind.strip(b"\0\r\n\x1a "))


def test_what_is_left_out_is_said_once(tmp_path, capsys):
    file = tmp_path / "said.csv.gz"
    file.write_bytes(PACKED + b"\r\n<html>")
    for _ in range(2):
        read_file(file)
    assert capsys.readouterr().err == (
        "warning: 6 bytes that follow the gzip data of said.csv.gz are left out; the data are whole\n"
    )


@pytest.mark.parametrize(
    "damaged",
    [
        *(PACKED[:-1], PACKED[:-8], PACKED[:20], PACKED + AND_MORE[:-5], PACKED + AND_MORE[:12]),
        *(PACKED[:-6] + b"\0\0" + PACKED[-4:], PACKED + b"junk" + AND_MORE),
        *(PACKED[:200] + b"\0\0" + PACKED[202:], b"\r\n" + PACKED),
    ],
    ids=range(9),
)
def test_a_damaged_gzip_file_is_refused(tmp_path, damaged):
    file = tmp_path / "log.csv.gz"
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=r"log\.csv\.gz is not a complete gzip file"):
        read_file(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"log\.csv is empty"),
        (b"\n", r"log\.csv is empty"),
        (b"user,user\n", r"two columns have the name 'user'"),
        ("user,item\n".encode("utf-16"), r"line 1: not UTF-8 at byte 1"),
    ],
)
def test_a_header_that_names_nothing_is_refused(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_header_alone_has_no_rows(read):
    assert read(HEADER) == read(HEADER.strip()) == []


def test_latin_1_and_long_separators(tmp_path, block_bytes):
    form = Form(("item", "title"), "::", has_header=False, has_quotes=False, is_latin=True)
    for encoding in ("latin-1", "utf-8"):
        file = tmp_path / f"{encoding}.dat"
        file.write_bytes('1::Café "x": 2\n2::b::c\n'.encode(encoding))
        bad = BadLines("skip")
        reader = SeparatedFile(file, form, {"item_id": ("item", "identifier"), "title": ("title", "text")})
        assert [row for part in reader.chunks(Request(["item_id", "title"], bad)) for row in part.rows()] == [
            ("1", 'Café "x": 2', 1)
        ]
        assert bad.first[0].endswith("line 2: 3 fields where 2 are due: '2::b::c'")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_advance_adds_up_to_the_size(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 100)
    file = tmp_path / f"log{suffix}"
    table = pl.DataFrame({name: [f"{i}" for i in range(1000)] for name, _ in INTERACTIONS.values()})
    if suffix == ".parquet":
        table.with_columns(pl.col("rating").cast(pl.Int32)).write_parquet(file)
        reader = ParquetFile(file, INTERACTIONS)
    else:
        text = table.write_csv().encode()
        file.write_bytes(gzip.compress(text) if suffix == ".csv.gz" else text)
        reader = SeparatedFile(file, read_form(file), INTERACTIONS)
    steps = []
    frames = list(reader.chunks(Request(["user_id"], BadLines(), advance=steps.append)))
    assert sum(steps) == file.stat().st_size
    assert len(frames) > 5
    assert pl.concat(frames)["user_id"].to_list() == table["user"].to_list()


def write_parquet(folder, **columns):
    file = folder / "log.parquet"
    pl.DataFrame(columns).write_parquet(file)
    return file


def test_parquet_types(tmp_path):
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    file = write_parquet(
        tmp_path,
        item=[7, 8],
        title=pl.Series(["a", "b"], dtype=pl.Categorical),
        genres=["x|y", None],
        price=[17.0, float("nan")],
        time=[moment, None],
        day=[date(1970, 1, 2), None],
        small=pl.Series([4, None], dtype=pl.Int8),
    )
    fields = {
        "item_id": ("item", "identifier"),
        "title": ("title", "text"),
        "categories": ("genres", "texts"),
        "description": ("title", "joined_texts"),
        "price": ("price", "price"),
        "timestamp": ("time", "number"),
        "position": ("day", "number"),
        "rating": ("small", "number"),
    }
    (part,) = ParquetFile(file, fields).chunks(Request(list(fields), BadLines()))
    assert part.rows() == [
        ("7", "a", ["x", "y"], "a", "17.0", moment.timestamp(), 86400.0, 4.0, 1),
        ("8", "b", [], "b", None, None, None, None, 2),
    ]
    assert next(ParquetFile(file, fields).chunks(Request(["title"], BadLines(), np.array([2])))).rows() == [("b", 2)]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [1.0], r"the column 'user' is of type Float64, but user_id must be texts or whole numbers"),
        ("rating", ["5"], r"the column 'rating' is of type String, but rating must be numbers"),
        ("review", [5], r"the column 'review' is of type Int64, but review_text must be texts"),
        ("user", [None], r"line 1: user is blank"),
        ("item", [" "], r"line 1: item is blank"),
        ("rating", [float("inf")], r"line 1: rating = 'inf' is no number"),
    ],
)
def test_a_wrong_value_in_parquet_is_named(tmp_path, column, values, message):
    right = {"user": ["u"], "item": ["i"], "rating": [5.0], "review": ["r"]}
    file = write_parquet(tmp_path, **right | {column: values})
    with pytest.raises(DataError, match=rf"log\.parquet.*{message}"):
        list(ParquetFile(file, INTERACTIONS).chunks(Request(list(INTERACTIONS), BadLines())))


def test_a_wrong_row_in_parquet_is_left_out(tmp_path):
    file = write_parquet(tmp_path, user=["u", "", "v"], item=[1, 2, 3], rating=[1, 2, 3], review=[None, "b", "c"])
    bad = BadLines("skip")
    rows = [
        row for part in ParquetFile(file, INTERACTIONS).chunks(Request(list(INTERACTIONS), bad)) for row in part.rows()
    ]
    assert rows == [("u", "1", 1.0, None, 1), ("v", "3", 3.0, "c", 3)]
    assert bad.num_rows == 1


def test_a_parquet_file_that_was_cut_is_refused(tmp_path):
    file = write_parquet(tmp_path, user=["u"])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"log\.parquet is not a complete parquet file"):
        parquet.parquet_types(file)
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"log\.parquet is not a complete parquet file"):
        parquet.parquet_types(file)


# What a text may hold that a reader could take for something else; no text is blank, which CSV cannot tell from null.
TEXTS = st.text(
    st.one_of(st.sampled_from("\"',;\t\n|& <>/abi07.\\"), st.characters(exclude_categories=["Cs"])),
    min_size=1,
    max_size=12,
).filter(lambda text: bool(text.strip()) and "\r" not in text.replace("\r\n", ""))
PARTS = TEXTS.filter(lambda text: "|" not in text)
NUMBERS = st.one_of(st.none(), st.integers(-5, 10**12).map(float), st.floats(allow_nan=False, allow_infinity=False))
ITEM_ROWS = st.fixed_dictionaries(
    {
        "item_id": TEXTS,
        "title": st.none() | TEXTS,
        "description": st.none() | TEXTS,
        "categories": st.lists(PARTS, max_size=3),
        "price": st.none() | TEXTS,
        "average_rating": NUMBERS,
    }
)
INTERACTION_ROWS = st.fixed_dictionaries(
    {
        "user_id": TEXTS,
        "item_id": TEXTS,
        "rating": NUMBERS,
        "timestamp": NUMBERS,
        "position": NUMBERS,
        "review_text": st.none() | TEXTS,
    }
)


def write_form(folder, form, role, rows, schema, separator, end):
    if form == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=len(rows) % 2 == 0) + end for row in rows)
        (folder / f"{role}.jsonl").write_bytes(text.encode())
    elif form == "parquet":
        types = {name: dtype for name, dtype in schema.items() if name != "line"}
        pl.DataFrame(rows, schema=types).write_parquet(folder / f"{role}.parquet", row_group_size=3)
    else:
        text = io.StringIO()
        writer = csv.DictWriter(
            text, [name for name in schema if name != "line"], delimiter=separator, lineterminator=end
        )
        writer.writeheader()
        for row in rows:
            told = {name: "" if value is None else value for name, value in row.items()}
            writer.writerow(told | ({"categories": "|".join(row["categories"])} if "categories" in row else {}))
        (folder / f"{role}.csv").write_bytes(text.getvalue().encode())


@given(
    st.lists(ITEM_ROWS, min_size=1, max_size=8),
    st.lists(INTERACTION_ROWS, min_size=1, max_size=8),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([1, 50, 8 << 20]),
)
def test_the_same_rows_are_the_same_in_every_form(tmp_path_factory, items, interactions, separator, end, size):
    frames = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", size)
        patch.setattr(parquet, "BATCH_ROWS", 2)
        for form in ("jsonl", "csv", "parquet"):
            folder = tmp_path_factory.mktemp(form)
            write_form(folder, form, "items", items, ITEM_SCHEMA, separator, end)
            write_form(folder, form, "interactions", interactions, INTERACTION_SCHEMA, separator, end)
            logs = find_source(form, Files(folder)).logs
            frames[form] = [
                read_all(reader, schema).drop("line")
                for reader, schema in ((logs.items, ITEM_SCHEMA), (logs.interactions, INTERACTION_SCHEMA))
            ]
    for form in ("csv", "parquet"):
        for one, other in zip(frames["jsonl"], frames[form], strict=True):
            assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("value", ["7.0", "1e2", "-3E0", "true", "null", "[]", "{}", '""', '"\\ud83d"'])
def test_json_that_identifies_nothing_is_refused(tmp_path, value):
    (tmp_path / "items.jsonl").write_text('{"item_id": "a"}\n', encoding="utf-8")
    rows = [
        '{"user_id": "u", "item_id": 7}',
        f'{{"user_id": "v", "item_id": {value}}}',
        '{"user_id": 8, "item_id": "1.0"}',
    ]
    (tmp_path / "interactions.jsonl").write_text("\n".join(rows), encoding="utf-8")
    reader = find_source(tmp_path).logs.interactions
    with pytest.raises(DataError, match=r"interactions\.jsonl, line 2: item_id = .* identifies nothing"):
        list(reader.chunks(Request(["user_id", "item_id"], BadLines())))
    rows = pl.concat(reader.chunks(Request(["user_id", "item_id"], BadLines("skip"))))
    assert rows.rows() == [("u", "7", 1), ("8", "1.0", 3)]


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.sampled_from([1.0, 1e300, -2.5, 1e-7, 17.0, 17.4, 0.001, 0.0001, 1e16, 123456.789, float("nan"), float("inf")])
    | st.text(max_size=4)
    | st.sampled_from(
        ["5", "1.0", "true", "null", "[]", "{}", "$3", "—", "from 2", "17.0", "\x00", "\ud83d", "a\udc00", " ", "<b>"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


def _rows_of(names):
    right = st.fixed_dictionaries({"user_id": st.sampled_from(["u", 7, "8"]), "item_id": st.just("i")})
    return st.builds(dict.__or__, right, st.dictionaries(st.sampled_from(names), ANY, max_size=2))


@given(
    st.lists(_rows_of([name for name in INTERACTION_SCHEMA | ITEM_SCHEMA if name != "line"]), min_size=1, max_size=6),
    st.sampled_from([0, 1, 2]),
)
def test_json_is_the_same_read_fast_or_line_by_line(tmp_path_factory, rows, num_blank):
    folder = tmp_path_factory.mktemp("json")
    text = "".join(json.dumps(row) + "\n" for row in rows) + "\n" * (num_blank // 2)
    for role in ("items", "interactions"):
        (folder / f"{role}.jsonl").write_text(text, encoding="utf-8")
    logs = find_source("jsonl", Files(folder)).logs
    for reader, schema in ((logs.items, ITEM_SCHEMA), (logs.interactions, INTERACTION_SCHEMA)):
        columns = [name for name in schema if name != "line"]
        read = []
        for by_polars in (json_lines.JsonLines._by_polars, lambda *_: None):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(json_lines.JsonLines, "_by_polars", by_polars)
                bad = BadLines("skip")
                read.append((list(reader.chunks(Request(columns, bad))), bad.first))
        (fast, fast_bad), (slow, slow_bad) = read
        assert fast_bad == slow_bad
        assert_frame_equal(pl.concat(fast), pl.concat(slow), check_exact=True)


def test_every_unit_of_time_is_brought_to_seconds():
    seconds = 1_600_000_000.0
    times = pl.DataFrame({"t": [seconds, seconds * 1e3, seconds * 1e6, seconds * 1e9, None, 0.0, -5.0]})
    assert times.select(in_seconds(pl.col("t"))).to_series().to_list() == [*[seconds] * 4, None, 0.0, -5.0]
