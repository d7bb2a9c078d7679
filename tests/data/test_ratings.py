"""Ratings of other scales."""

import json
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config.data import STARS, DataConfig, RatingScale, parse_scale
from langptune_rs.config.run import RunConfig
from langptune_rs.config.toml import to_toml
from langptune_rs.data import load, prepare, read_history, resolve_config
from langptune_rs.data.preparing.ratings import in_stars, scale_advice
from langptune_rs.errors import ConfigError, DataError


def unlimited(**settings):
    return DataConfig(max_item_tokens=None, max_history_tokens=None, **settings)


@pytest.mark.parametrize(
    ("scale", "to_theirs"),
    [
        ("0-10", lambda stars: 2 * stars),
        ("0-100", lambda stars: 20 * stars),
        ("0-1", lambda stars: stars / 5),
        ("-10-10", lambda stars: 4 * stars - 10),
        ("1 - 7.5", lambda stars: 1 + 1.3 * stars),
        ("0-5", lambda stars: stars),
    ],
)
def test_ratings_of_any_scale_are_those_of_stars(write_logs, items, interactions, tmp_path, scale, to_theirs):
    items = [item | {"average_rating": 0.5 * i % 5} for i, item in enumerate(items)]
    theirs = [row | {"rating": to_theirs(row["rating"])} for row in interactions]
    their_items = [item | {"average_rating": to_theirs(item["average_rating"])} for item in items]
    expected = prepare(write_logs(items, interactions, name="stars"), tmp_path / "expected", unlimited())
    data = prepare(write_logs(their_items, theirs), tmp_path / "out", unlimited(rating_scale=scale))
    assert data.sessions.ratings == pytest.approx(expected.sessions.ratings, abs=1e-6)
    assert data.catalog.texts == expected.catalog.texts
    assert [data.prompt(data.sessions, i) for i in range(5)] == [
        expected.prompt(expected.sessions, i) for i in range(5)
    ]
    assert str(data.rating_scale) == scale.replace(" ", "")


def test_a_rating_beyond_the_scale_is_answered_with_one(write_logs, items, interactions, tmp_path):
    tens = write_logs(items, [row | {"rating": 2 * row["rating"]} for row in interactions])
    arguments = ["data", "prepare", str(tens), str(tmp_path / "out"), "--max-item-tokens", "0"]
    arguments += ["--max-history-tokens", "0"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 2
    assert "is not from 0 to 5. If the ratings have another scale, give it, such as --rating-scale 0-10" in said.stderr
    done = CliRunner().invoke(app, [*arguments, "--rating-scale", "0-10"])
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "out").info["removed"]["bad_lines"] == 0
    other = CliRunner().invoke(app, arguments)
    assert (other.exit_code, "rating_scale = '0-10' there, unset here" in other.stderr) == (2, True)


@pytest.mark.parametrize(
    ("rating", "scale"), [(7, "0-10"), (10, "0-10"), (11, "0-20"), (85, "0-100"), (-1, "-1-1"), (-9.5, "-10-10")]
)
def test_the_scale_that_is_named_is_one_of_the_rating(rating, scale):
    assert f"--rating-scale {scale} " in scale_advice(rating)
    low, high = parse_scale(scale)
    assert low <= rating <= high


def test_a_rating_of_no_usual_scale_is_answered_without_one():
    assert "--rating-scale LOW-HIGH" in scale_advice(1e6)


@pytest.mark.parametrize(
    "text",
    [
        "10",
        "5-0",
        "3-3",
        "a-b",
        "0-inf",
        "",
        "0-10-20",
        "1e-5",
        "0-1e",
        "0-1e999",
        "0-" + "9" * 400,
        "-1e308-1e308",
        "0-5e-324",
    ],
)
def test_what_is_no_scale_is_refused(text):
    with pytest.raises(ValueError, match=r"is no scale; write the lowest and the highest rating"):
        DataConfig(rating_scale=text)


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.sampled_from([1, 10, 100]), st.floats(0, 1, allow_nan=False))
def test_a_scale_is_read_back_and_keeps_the_order(low, width, parts, share):
    scale = RatingScale(low / parts, (low + width) / parts)
    assert parse_scale(str(scale)) == scale
    rating = scale.low + share * (scale.high - scale.low)
    assert in_stars(rating, scale) == pytest.approx(5 * share, abs=1e-6)
    assert in_stars(rating, STARS) == rating
    assert DataConfig(rating_scale=str(scale)).scale == scale


@pytest.mark.parametrize(
    ("text", "written"),
    [
        *[
            ("0-1000000", "0-1000000"),
            ("0-0.00001", "0-1e-05"),
            ("0-123456.7", "0-123456.7"),
            ("1e6-1E+7", "1000000-10000000"),
        ],
        *[("-1e-05 - 1e16", "-1e-05-1e+16"), ("-0-10", "0-10"), ("1.0-7.50", "1-7.5"), ("-10--5", "-10--5")],
    ],
)
def test_a_scale_is_written_with_all_digits(text, written):
    config = RunConfig.model_validate({"data": {"rating_scale": text}})
    assert config.data.rating_scale == written
    assert parse_scale(written) == parse_scale(text) == config.data.scale
    assert RunConfig.model_validate(tomllib.loads(to_toml(config))) == config


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_every_scale_that_is_accepted_is_read_back(low, high):
    text = f"{low!r}-{high!r}"
    try:
        scale = parse_scale(text)
    except ValueError:
        assert low >= high or not 0 < 5 / (high - low) < math.inf
        return
    assert scale == (low, high)
    assert parse_scale(str(scale)) == scale
    stored = DataConfig(rating_scale=text).rating_scale
    assert DataConfig(rating_scale=stored).rating_scale == stored


def test_a_rating_and_its_scale_are_said_with_all_digits(write_logs, items, interactions, tmp_path):
    """A rating of 1000001 is not the 1e+06 that its scale ends with."""
    logs = write_logs(items, [interactions[0] | {"rating": 1_000_001}, *interactions[1:]])
    with pytest.raises(DataError, match=r"the rating 1000001 is not from 0 to 1000000\."):
        prepare(logs, tmp_path / "out", unlimited(rating_scale="0-1000000"))
    for scale in ("0-1000000", "0-1e6"):
        prepare(write_logs(items, interactions), tmp_path / "millions", unlimited(rating_scale=scale))
    assert load(tmp_path / "millions").rating_scale == (0, 1e6)


def test_a_history_has_the_scale_of_its_data_set(write_logs, items, interactions, tmp_path):
    tens = write_logs(items, [row | {"rating": 2 * row["rating"]} for row in interactions])
    data = prepare(tens, tmp_path / "out", unlimited(rating_scale="0-10"))
    file = tmp_path / "history.jsonl"
    file.write_text(json.dumps({"item_id": "i1", "rating": 9}) + "\n", encoding="utf-8")
    assert read_history(file, data.catalog, data.rating_scale)[1] == [4.5]
    with pytest.raises(DataError, match=r"the rating 9 is not from 0 to 5, the scale of the data set"):
        read_history(file, data.catalog)


def test_a_recipe_and_its_prepared_data_agree_on_the_scale(logs, tmp_path):
    prepare(logs, tmp_path / "out", unlimited())
    source = str(tmp_path / "out")
    assert resolve_config(DataConfig(source=source, rating_scale="0-5")).rating_scale is None
    with pytest.raises(ConfigError, match=r"data.rating_scale = '0-10', but .* prepared with None.*rating_scale=none"):
        resolve_config(DataConfig(source=source, rating_scale="0-10"))
