"""MovieLens as GroupLens gives it: 100K, 1M, and the sets with a header; titles, genres, and overview tables."""

import gzip
import json

import polars as pl
import pytest

from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.readers.reader import INTERACTION_SCHEMA, ITEM_SCHEMA, Request, read_all
from langptune_rs.data.sources.files import Files
from langptune_rs.data.sources.movielens import with_article_first
from langptune_rs.data.sources.registry import find_source
from langptune_rs.errors import DataError

GENRES = ["unknown", "Action", "Drama"]
MOVIES = 'movieId,title,genres\n1,"Matrix, The (1999)",Action|Sci-Fi\n2,Café (1990),(no genres listed)\n'


@pytest.fixture
def latest(tmp_path):
    (tmp_path / "movies.csv").write_text(MOVIES, encoding="utf-8")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.5,88\n", encoding="utf-8")
    return tmp_path


def items_of(folder, overview=None, bad=None):
    return read_all(find_source(folder, Files(overview=overview)).logs.items, ITEM_SCHEMA, bad)


def test_100k_of_grouplens(tmp_path):
    flags = "|{}|{}|{}\n".format
    items = "1|Usual Suspects, The (1995)|14-Aug-1995||http://x" + flags(0, 1, 1)
    items += "2|Café Müller (1990)|||" + flags(1, 0, 0)
    (tmp_path / "u.item").write_bytes(items.encode("latin-1"))
    (tmp_path / "u.data").write_text("196\t1\t3\t881250949\n1\t2\t5\t88\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"There is no u\.genre in"):
        find_source(tmp_path)
    (tmp_path / "u.genre").write_text(
        "".join(f"{name}|{i}\n" for i, name in enumerate(GENRES)) + "\n", encoding="utf-8"
    )
    source = find_source(tmp_path)
    assert (source.name, source.logs.template) == ("ml-100k", "movies")
    assert items_of(tmp_path).rows() == [
        ("1", "The Usual Suspects (1995)", None, ["Action", "Drama"], None, None, 1),
        ("2", "Café Müller (1990)", None, [], None, None, 2),
    ]
    assert read_all(source.logs.interactions, INTERACTION_SCHEMA).rows() == [
        ("196", "1", 3.0, 881250949.0, None, None, 1),
        ("1", "2", 5.0, 88.0, None, None, 2),
    ]
    assert {path.name for path in source.logs.files.values()} == {"u.item", "u.data", "u.genre"}


def test_1m(tmp_path):
    (tmp_path / "movies.dat").write_bytes(
        "1::Misérables, Les (1995)::Drama|Musical\n2::12 Monkeys::\n".encode("latin-1")
    )
    (tmp_path / "ratings.dat").write_text("1::1::5::978300760\n1::2::x::1\n1::2::1\n", encoding="utf-8")
    source = find_source(tmp_path)
    assert source.name == "ml-1m"
    assert items_of(tmp_path).rows() == [
        ("1", "Les Misérables (1995)", None, ["Drama", "Musical"], None, None, 1),
        ("2", "12 Monkeys", None, [], None, None, 2),
    ]
    bad = BadLines("skip")
    assert read_all(source.logs.interactions, INTERACTION_SCHEMA, bad).rows() == [
        ("1", "1", 5.0, 978300760.0, None, None, 1)
    ]
    assert [text.partition(": ")[2] for text in bad.first] == [
        "Rating = 'x' is no number. Give a number, or leave it out.",
        "3 fields where 4 are due: '1::2::1'",
    ]


def test_latest(latest):
    source = find_source(latest)
    assert source.name == "ml-latest"
    assert find_source("ml-32m", Files(latest)).logs == source.logs
    assert items_of(latest).rows() == [
        ("1", "The Matrix (1999)", None, ["Action", "Sci-Fi"], None, None, 2),
        ("2", "Café (1990)", None, [], None, None, 3),
    ]
    assert read_all(source.logs.interactions, INTERACTION_SCHEMA).rows() == [("1", "1", 4.5, 88.0, None, None, 2)]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("American President, The", "The American President"),
        ("Beautiful Mind, A (2001)", "A Beautiful Mind (2001)"),
        ("Good, the Bad and the Ugly, The (1966)", "The Good, the Bad and the Ugly (1966)"),
        (
            "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
            "The City of Lost Children (La Cité des enfants perdus) (1995)",
        ),
        ("Avventura, L' (1960)", "L'Avventura (1960)"),
        ("Boot, Das (1981)", "Das Boot (1981)"),
        ("Me, Myself & Irene (2000)", "Me, Myself & Irene (2000)"),
        ("Thelma, Theodora (2000)", "Thelma, Theodora (2000)"),
        ("The End (1990)", "The End (1990)"),
        ("", ""),
        (None, ""),
    ],
)
def test_articles_stand_in_front(title, expected):
    assert pl.select(with_article_first(pl.lit(title, pl.String))).item() == expected


def write_table(folder, suffix, rows):
    file = folder / f"plots{suffix}"
    table = pl.DataFrame(rows)
    match suffix:
        case ".csv":
            table.write_csv(file)
        case ".csv.gz":
            file.write_bytes(gzip.compress(table.write_csv().encode()))
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            table.write_parquet(file)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("key", "text"), [("movieId", "overview"), ("item_id", "description"), ("tmdbId", "Overview")])
def test_overviews_become_descriptions(latest, suffix, key, text):
    ids = {"movieId": [2, 2, 9], "item_id": [2, 2, 9], "tmdbId": [603, 603, 9]}[key]
    plots = ["A plot,\n<i>told</i>", "Another", "Unknown"]
    rows = [{key: number, text: plot, "extra": 1} for number, plot in zip(ids, plots, strict=True)]
    file = write_table(latest, suffix, rows)
    if key == "tmdbId":
        with pytest.raises(DataError, match=r"TMDB's ids only, and there is no links\.csv"):
            find_source(latest, Files(overview=file))
        (latest / "links.csv").write_text("movieId,imdbId,tmdbId\n1,0133093,\n2,0114709,603\n", encoding="utf-8")
    items = items_of(latest, file)
    assert items.select("item_id", "description").rows() == [("1", None), ("2", "A plot, told")]
    assert items["line"].to_list() == [2, 3]
    files = find_source(latest, Files(overview=file)).logs.files
    assert files["overview"] == file
    assert ("links" in files) == (key == "tmdbId")


def test_a_wrong_row_of_an_overview_counts_once(latest):
    file = latest / "plots.csv"
    file.write_text("movieId,overview\n1,One\n,None\n2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"plots\.csv, line 3: movieId is blank"):
        items_of(latest, file)
    bad = BadLines("skip")
    reader = find_source(latest, Files(overview=file)).logs.items
    lines = pl.concat(reader.chunks(Request(["item_id", "description"], bad)))["line"]
    (again,) = reader.chunks(Request(["description"], bad, lines.to_numpy()))
    assert again.rows() == [("One", 2), (None, 3)]
    assert bad.num_rows == 2


def test_an_overview_without_an_id_or_a_text_is_refused(latest):
    for header in ("title,overview", "movieId,title"):
        file = latest / "plots.csv"
        file.write_text(f"{header}\n1,x\n", encoding="utf-8")
        with pytest.raises(DataError, match=rf"plots\.csv needs a column .* It has {header.replace(',', ', ')}"):
            find_source(latest, Files(overview=file))
    with pytest.raises(DataError, match=r"There is no file .*nowhere\.csv, which was given for the overview"):
        find_source(latest, Files(overview=latest / "nowhere.csv"))


def test_an_overview_that_describes_no_film_is_refused_with_both_kinds_of_ids(latest):
    file = latest / "plots.csv"
    file.write_text("movieId,overview\ntt01,One\ntt02,Two\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'movieId' has ids such as 'tt01', 'tt02'; those of movies\.csv are '1', '2'"):
        items_of(latest, file)
    file.write_text("tmdbId,overview\ntt01,One\n", encoding="utf-8")
    (latest / "links.csv").write_text("movieId,imdbId,tmdbId\n1,0133093,603\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'tmdbId' has ids such as 'tt01'; links\.csv has '603', and those of movies"):
        items_of(latest, file)
    file.write_text("movieId,overview\n1,\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"plots\.csv holds no description"):
        items_of(latest, file)
