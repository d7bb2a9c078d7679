"""From a source to a data set and back, with nothing prepared twice and nothing replaced unasked."""

import json
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from filelock import FileLock

from langptune_rs.config.data import DataConfig, make_config
from langptune_rs.data import load, open_source, prepare, resolve_config
from langptune_rs.errors import ConfigError, DataError

unlimited = partial(DataConfig, max_item_tokens=None, max_history_tokens=None)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(("split", "windows"), [("session", "last"), ("session", "all"), ("leave-last-out", "all")])
def test_sessions_are_what_the_users_did(logs, interactions, tmp_path, split, windows):
    data = prepare(logs, tmp_path / "out", unlimited(split=split, windows=windows))
    sessions = data.sessions
    done = {row["review_text"]: row for row in interactions}
    newest: dict[str, float] = {}
    for i, user in enumerate(sessions.user_ids):
        history = [done[review] for review in sessions.reviews[i]]
        times = [row["timestamp"] for row in history]
        assert {row["user_id"] for row in history} == {user}
        assert [row["rating"] for row in history] == sessions.ratings[i].tolist()
        assert [row["item_id"] for row in history] == [data.catalog.item_ids[item] for item in sessions.histories[i]]
        assert times == sorted(times)
        assert newest.get(user, -1) < times[0]
        newest[user] = times[-1]
        assert len({*sessions.histories[i], sessions.targets[i]}) == 5
    assert len(newest) == 30
    assert sessions.session_ids.tolist() == list(range(len(sessions)))
    assert sum(data.info["sessions"].values()) == len(sessions)


def test_splits_are_disjoint_and_the_seed_s(logs, tmp_path):
    data = {
        name: prepare(logs, tmp_path / name, unlimited(windows="all", seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    }
    ids = {
        split: set(data["a"].sessions.select(split).session_ids.tolist()) for split in ("train", "validation", "test")
    }
    assert sum(map(len, ids.values())) == len(data["a"].sessions) == len(set.union(*ids.values()))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert data["a"].sessions.splits != data["c"].sessions.splits
    np.testing.assert_array_equal(data["a"].sessions.histories, data["c"].sessions.histories)


def test_the_order_of_the_lines_does_not_matter(write_logs, items, interactions, tmp_path):
    unique_times = [row | {"timestamp": row["timestamp"] + 0.5} for row in interactions]
    one = prepare(write_logs(items, unique_times, name="one"), tmp_path / "1", unlimited())
    two = prepare(write_logs(items, unique_times[::-1], name="two"), tmp_path / "2", unlimited())
    np.testing.assert_array_equal(one.sessions.histories, two.sessions.histories)
    assert (one.sessions.splits, one.sessions.user_ids) == (two.sessions.splits, two.sessions.user_ids)


def test_filters_are_counted_step_by_step(write_logs, items, interactions, tmp_path):
    lonely = [{"user_id": "lonely", "item_id": "i0"}] * 4
    mute = [{"user_id": f"u{user:02}", "item_id": "mute"} for user in range(30)]
    folder = write_logs([*items, {"item_id": "mute", "title": None}], interactions + lonely + mute)
    info = prepare(folder, tmp_path / "out", unlimited()).info
    assert [(step["step"], step["users"], step["items"], step["interactions"]) for step in info["filters"][:3]] == [
        ("source", 31, 13, 720 + 34),
        ("items with text", 31, 12, 720 + 4),
        ("5-core", 30, 12, 720),
    ]
    assert info["filters"][3]["step"] == "sessions"
    assert info["filters"][3]["interactions"] == 5 * sum(info["sessions"].values())
    assert info["kept"] == {"users": 30, "items": 12, "interactions": 720}
    assert info["removed"] == {
        "users_with_too_few_interactions": 1,
        "items_with_too_few_interactions": 0,
        "items_without_text": 1,
        "items_too_long": 0,
        "repeated_descriptions": 0,
        "interactions_with_undescribed_items": 0,
        "items_without_interactions": 0,
        "reviews_that_cannot_be_used": 0,
        "duplicate_interactions": 0,
        "sessions_too_long": 0,
        "bad_lines": 0,
        "repeated_interactions_kept": 720 - len({(row["user_id"], row["item_id"]) for row in interactions}),
    }


@pytest.mark.parametrize(
    ("config", "step"), [(unlimited(min_interactions=60), "60-core"), (unlimited(history_length=12), "sessions")]
)
def test_the_step_that_leaves_nothing_is_named_and_nothing_is_written(logs, tmp_path, config, step):
    with pytest.raises(DataError, match=rf'Nothing is left after the step "{step}"'):
        prepare(logs, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_data_set_is_prepared_once(logs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    config = unlimited(source=str(logs))
    first = open_source(config, out)
    monkeypatch.setattr("langptune_rs.data.preparing.pipeline.save", lambda *_: pytest.fail("prepared again"))
    assert open_source(config, out).info == first.info
    assert open_source(unlimited(source=str(out), seed=9), tmp_path / "unused").info == first.info
    assert not (tmp_path / "unused").exists()
    shutil.rmtree(logs)
    assert open_source(config, out).info == first.info


def test_a_source_that_has_changed_since_is_not_taken_for_the_same(logs, tmp_path):
    config = unlimited(source=str(logs))
    open_source(config, tmp_path / "out")
    with (logs / "interactions.jsonl").open("a") as file:
        file.write(json.dumps({"user_id": "u00", "item_id": "i1"}) + "\n")
    with pytest.raises(DataError, match=r"already holds another data set \(other source files\)"):
        open_source(config, tmp_path / "out")


def test_a_half_written_folder_is_prepared_anew(logs, tmp_path):
    out = tmp_path / "out"
    config = unlimited(source=str(logs))
    before = open_source(config, out).info
    (out / "dataset.toml").unlink()
    (out / "sessions.parquet").write_bytes(b"half")
    assert open_source(config, out).info == before


def test_another_data_set_is_replaced_only_when_asked(logs, tmp_path):
    out = tmp_path / "out"
    prepare(logs, out, unlimited(template="movies"))
    for config, difference in (
        (unlimited(seed=3, template="movies"), "seed = 0 there, 3 here"),
        (unlimited(), "template = 'movies' there, 'generic' here"),
        (unlimited(windows="all", template="movies"), "windows = 'last' there, 'all' here"),
    ):
        with pytest.raises(DataError, match=rf"already holds another data set \({difference}\)"):
            prepare(logs, out, config)
    with (logs / "interactions.jsonl").open("a") as file:
        file.write(json.dumps({"user_id": "u00", "item_id": "i1"}) + "\n")
    with pytest.raises(DataError, match="other source files"):
        prepare(logs, out, unlimited(template="movies"))
    replaced = prepare(logs, out, unlimited(seed=3), overwrite=True)
    assert replaced.info == load(out).info
    assert replaced.info["config"]["seed"] == 3


def test_a_folder_with_other_files_is_left_alone(logs, tmp_path):
    with pytest.raises(DataError, match=r"holds other files, such as interactions\.jsonl"):
        prepare(logs, logs, unlimited(), overwrite=True)
    with pytest.raises(DataError, match="is a file"):
        prepare(logs, logs / "items.jsonl", unlimited())


def test_a_prepared_folder_brings_its_own_settings(logs, tmp_path):
    out = tmp_path / "out"
    prepare(logs, out, unlimited(split="leave-last-out", seed=4))
    resolved = resolve_config(unlimited(source=str(out), max_sessions=7))
    assert (resolved.split, resolved.windows, resolved.seed, resolved.max_sessions) == ("leave-last-out", "all", 4, 7)
    assert resolve_config(resolved) == resolved
    with pytest.raises(ConfigError, match=r"data\.seed = 5, but the data set .* was prepared with 4"):
        resolve_config(unlimited(source=str(out), seed=5))
    with pytest.raises(ConfigError, match=r"it is with --set data\.seed=4 --set data\.split=leave-last-out,"):
        resolve_config(unlimited(source=str(out), seed=5, split="session"))
    raw = unlimited(source=str(logs), seed=5)
    assert resolve_config(raw) is raw


def test_windows_follow_the_split_unless_set():
    assert DataConfig().window_rule == "last"
    assert DataConfig(split="leave-last-out").window_rule == "all"
    assert DataConfig(windows="all").window_rule == "all"
    with pytest.raises(ConfigError, match=r"leave-last-out.* set windows = \"all\""):
        make_config(split="leave-last-out", windows="last")


def test_reading_a_recipe_loads_no_table_library():
    code = "import sys, langptune_rs.config.data; print({'polars', 'torch'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_folder_is_prepared_by_one_process_at_a_time(logs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"):
        (out / ".lock").write_text("4711\n")
        with pytest.raises(DataError, match=r"being prepared in .*out \(process 4711\)\. Wait until that has ended"):
            prepare(logs, out, unlimited())
    prepare(logs, out, unlimited())
    assert {path.name for path in out.iterdir()} == {"items.parquet", "sessions.parquet", "dataset.toml", "arrow"}
    with FileLock(out / ".lock"):
        assert len(prepare(logs, out, unlimited()).sessions) == 30  # what is there is opened


def test_a_template_is_known_by_what_it_says(logs, tmp_path):
    for name, things in (("a", "games"), ("b", "games"), ("c", "books")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.jinja").write_text(f"{{% set things = '{things}' %}}")
    one, same, other = (unlimited(template=str(tmp_path / name / "mine.jinja")) for name in "abc")
    out = tmp_path / "out"
    prepare(logs, out, one)
    assert "games" in prepare(logs, out, same).template.instruction
    with pytest.raises(DataError, match=r"template = .*a/mine\.jinja' there, .*c/mine\.jinja' here"):
        prepare(logs, out, other)
    assert resolve_config(same.model_copy(update={"source": str(out)})).template == one.template
    with pytest.raises(ConfigError, match=r"data\.template = "):
        resolve_config(DataConfig(source=str(out), template=other.template))
