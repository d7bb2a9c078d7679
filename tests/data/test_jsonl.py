"""A folder of JSON lines: what is read, and what is refused with file and line."""

import gzip
import json

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langptune_rs.data.preparing.passes import read_keys
from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.readers.json_lines import JsonLines
from langptune_rs.data.readers.json_rows import parse_json
from langptune_rs.data.readers.reader import INTERACTION_SCHEMA, ITEM_SCHEMA, Request, read_all
from langptune_rs.data.sources.files import Files
from langptune_rs.data.sources.registry import find_source
from langptune_rs.errors import DataError

ITEM = {"item_id": "a", "title": "A"}
TAKEN = {"user_id": "u", "item_id": "a"}


def check(folder):
    """Reads all that the first pass of `prepare` reads, and checks it as that does."""
    return read_keys(find_source(folder).logs, BadLines())


def test_every_field_is_read(write_logs):
    folder = write_logs(
        [
            {
                "item_id": 7,
                "title": " A &amp; B ",
                "description": "Long<br>text",
                "categories": ["x", " "],
                "price": 17.4,
                "average_rating": 4,
                "brand": "passed over",
            },
            {"item_id": "b", "title": None, "categories": "one", "price": "$3"},
        ],
        [
            {"user_id": 1, "item_id": 7, "rating": 4, "timestamp": 88, "review_text": " Fine. "},
            "",
            {"user_id": "v", "item_id": "b", "position": 3, "rating": None},
        ],
        gz=True,
    )
    source = find_source(folder)
    assert (source.name, source.logs.template) == ("jsonl", "generic")
    assert read_all(source.logs.items, ITEM_SCHEMA).rows() == [
        ("7", "A & B", "Long text", ["x"], "17.4", 4.0, 1),
        ("b", None, None, ["one"], "$3", None, 2),
    ]
    assert read_all(source.logs.interactions, INTERACTION_SCHEMA).rows() == [
        ("1", "7", 4.0, 88.0, None, "Fine.", 1),
        ("v", "b", None, None, 3.0, None, 3),
    ]


def test_a_byte_order_mark_and_crlf_are_read(write_logs):
    folder = write_logs([ITEM], [TAKEN])
    for name in ("items.jsonl", "interactions.jsonl"):
        text = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert read_all(find_source(folder).logs.interactions, INTERACTION_SCHEMA)["item_id"].to_list() == ["a"]


@pytest.mark.parametrize(
    ("items", "interactions", "message"),
    [
        ([ITEM, ITEM], [TAKEN], r"items\.jsonl, line 2: the item_id 'a' was given before"),
        ([{"item_id": "a", "title": " "}], [TAKEN], r"items\.jsonl, line 1: the item 'a' has an empty title"),
        ([{"title": "A"}], [TAKEN], r"items\.jsonl, line 1: item_id = null identifies nothing"),
        ([{"item_id": True}], [TAKEN], r"items\.jsonl, line 1: item_id = true identifies nothing"),
        ([{"item_id": "a", "title": 3}], [TAKEN], r"items\.jsonl, line 1: title = 3 is no text"),
        (
            [{"item_id": "a", "categories": [1]}],
            [TAKEN],
            r"items\.jsonl, line 1: categories = \[1\] is no list of texts",
        ),
        ([], [TAKEN], r"items\.jsonl is empty"),
        ([ITEM], [], r"interactions\.jsonl is empty"),
        ([ITEM], [TAKEN, {**TAKEN, "rating": "five"}], r"interactions\.jsonl, line 2: rating = \"five\" is no number"),
        ([ITEM], ['{"user_id": "u", "item_id": "a", "rating": Infinity}'], r"line 1: rating = Infinity is no number"),
        ([ITEM], [{**TAKEN, "rating": True}], r"line 1: rating = true is no number"),
        ([ITEM], [{**TAKEN, "rating": 10**400}], r"line 1: rating = 10+.* is no number"),
        ([ITEM], [{**TAKEN, "rating": 5.5}], r"interactions\.jsonl, line 1: the rating 5\.5 is not from 0 to 5"),
        ([ITEM], [{**TAKEN, "rating": -1}], r"interactions\.jsonl, line 1: the rating -1 is not from 0 to 5"),
        ([ITEM], [{**TAKEN, "timestamp": "noon"}], r"line 1: timestamp = \"noon\" is no number"),
        ([ITEM], [{**TAKEN, "item_id": "A"}], r"line 1: the item 'A' is not in items\.jsonl\. Did you mean 'a'\?"),
        (
            [ITEM],
            [TAKEN, "", '{"user_id": "u", '],
            r"interactions\.jsonl, line 3: broken JSON, .*: \{\"user_id\": \"u\",\. Mend",
        ),
        ([ITEM], ["[1]"], r"interactions\.jsonl, line 1: no JSON object but \[1\]"),
        ([ITEM], ["[" * 100_000], r"interactions\.jsonl, line 1: broken JSON, nested too deeply"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(write_logs, items, interactions, message):
    with pytest.raises(DataError, match=message):
        check(write_logs(items, interactions))


def test_a_broken_line_is_shown_in_part(write_logs):
    folder = write_logs([ITEM], ['{"user_id": ' + "long " * 1000])
    with pytest.raises(DataError) as caught:
        check(folder)
    assert len(str(caught.value)) < len(str(folder)) + 300


def test_text_that_is_no_utf8_is_refused(write_logs):
    folder = write_logs([ITEM], [TAKEN])
    (folder / "interactions.jsonl").write_bytes(json.dumps(TAKEN).encode() + b'\n{"user_id": "\xff"}\n')
    with pytest.raises(DataError, match=r"interactions\.jsonl, line 2: not UTF-8 at byte 14"):
        check(folder)


def test_a_gzip_file_that_was_cut_is_refused(write_logs):
    rows = [{**TAKEN, "review_text": str(i**5)} for i in range(2000)]
    folder = write_logs([ITEM], rows, gz=True)
    file = folder / "interactions.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(
        DataError, match=r"interactions\.jsonl\.gz is not a complete gzip file: reading stopped after line \d+"
    ):
        check(folder)
    file.write_bytes(b"plain text")
    with pytest.raises(DataError, match=r"is not a complete gzip file"):
        check(folder)


def test_files_that_are_missing_or_there_twice_are_named(write_logs, tmp_path):
    with pytest.raises(DataError, match=r"no source 'netflix'\. Give one of amazon-2023, .*, or a folder"):
        find_source("netflix")
    with pytest.raises(DataError, match=r"jsonl needs its items: give the file with --items, or the folder"):
        find_source("jsonl")
    with pytest.raises(DataError, match=r"holds the files of no source(.|\n)*jsonl: items\.jsonl and interactions"):
        find_source(tmp_path)
    folder = write_logs([ITEM], [TAKEN])
    assert find_source("jsonl", Files(folder)) == find_source(folder)
    (folder / "items.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match=r"holds items\.jsonl and items\.jsonl\.gz"):
        find_source(folder)
    (folder / "items.jsonl").unlink()
    (folder / "interactions.jsonl").unlink()
    with pytest.raises(DataError, match=r"There is no interactions\.jsonl \(or interactions\.jsonl\.gz\) in"):
        find_source(folder)


FIELDS = {
    "user_id": ("user", "identifier"),
    "item_id": ("item", "identifier"),
    "rating": ("rating", "number"),
    "review_text": ("text", "text"),
}
LINES = st.sampled_from(
    [
        b'{"user": "u", "item": "a", "rating": 4.0, "text": "Fine. \\"user\\": \\"x\\""}',
        b'{"item": 7, "user": "caf\xc3\xa9", "text": "a &amp; b", "other": {"user": "inner"}}',
        b'{"user": "u", "item": 7.0}',
        b'{"user": "u", "item": "a", "text": 3}',
        b'{"user": "u", "item": "a", "text": "cut',
        b'{"user": "\xff", "item": "a"}',
        b"",
        b"[1]",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, min_size=1, max_size=30), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 300))
def test_blocks_hold_what_each_line_says_and_lines_are_found_again(tmp_path, lines, mark, end, gz, block_bytes):
    data = b"\xef\xbb\xbf" * mark + b"\n".join(lines) + b"\n" * end
    file = tmp_path / ("log.jsonl" + ".gz" * gz)
    file.write_bytes(gzip.compress(data) if gz else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("langptune_rs.data.readers.blocks.BLOCK_BYTES", block_bytes)
        reader, bad = JsonLines(file, FIELDS), BadLines("skip")
        read = read_all(reader, INTERACTION_SCHEMA, bad)
        slow = BadLines("skip")
        assert read.equals(read_all(JsonLines(file, FIELDS, parse_json_slowly), INTERACTION_SCHEMA, slow))
        kinds = ("broken line", "broken JSON")
        assert [text.replace(*kinds) for text in slow.first] == bad.first
        assert slow.num_rows == bad.num_rows
        numbers = read["line"].to_numpy()[::2]
        for again in (reader, JsonLines(file, FIELDS)):
            found = pl.concat(
                [read.select("review_text", "line").clear(), *again.chunks(Request(["review_text"], bad, numbers))]
            )
            assert found.equals(read.select("review_text", "line").gather_every(2))


def parse_json_slowly(line):
    return parse_json(line)
