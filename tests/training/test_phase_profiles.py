"""Profiles that survive the process that wrote them."""

import json

import pytest

from langptune_rs.training.phase_profiles import KeptProfiles, Written, read_written, save_written

BATCHES = [[[1, 2], [3]], [[4]], [[5, 6]]]


def test_whole_batches_survive_and_one_that_was_cut_off_does_not(tmp_path):
    path = tmp_path / "checkpoints" / "profiles.jsonl"
    first = KeptProfiles(path)
    assert (first.batches, first.num_profiles) == ([], 0)
    first.add(BATCHES[0])
    first.add(BATCHES[1])
    with path.open("a") as file:
        file.write("[[5, 6")
    second = KeptProfiles(path)
    assert (second.batches, second.num_profiles) == (BATCHES[:2], 3)
    second.add(BATCHES[2])
    assert KeptProfiles(path).batches == BATCHES
    second.remove()
    assert not path.exists()


def test_what_was_written_is_read_with_its_time_also_where_an_earlier_version_noted_none(tmp_path, capsys):
    path, written = tmp_path / "profiles-0.json", Written(["a", "b"], 12.5)
    assert read_written(path) is None
    save_written(path, written)
    assert read_written(path) == written
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in ("sha256", "texts")}))
    assert read_written(path) == Written(["a", "b"], 0.0)
    path.write_text(json.dumps({**content, "texts": ["a", "c"]}))
    assert read_written(path) is None
    assert "profiles-0.json has changed since it was written" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["a number", "no JSON", "no UTF-8", "an older version"])
def test_a_batch_that_has_changed_is_dropped_with_those_after_it(tmp_path, capsys, damage):
    path = tmp_path / "profiles.jsonl"
    kept = KeptProfiles(path)
    for batch in BATCHES:
        kept.add(batch)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = {
        "a number": lines[1].replace(b"[[4]]", b"[[7]]"),
        "no JSON": b"{\n",
        "no UTF-8": b"\xff\n",
        "an older version": b"[[4]]\n",
    }[damage]
    path.write_bytes(b"".join(lines))
    assert KeptProfiles(path).batches == (BATCHES[:1] if damage != "no UTF-8" else [])
    assert "profiles.jsonl has changed since it was written" in capsys.readouterr().err
