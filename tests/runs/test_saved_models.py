"""A trained model is opened as it was saved, or not at all."""

import pytest

from langptune_rs.errors import RunError
from langptune_rs.runs.folder import TRAINED
from langptune_rs.runs.saved_models import check_saved, note_saved


@pytest.fixture
def run(tmp_path):
    for name in ("policy/model.safetensors", "policy/config.json", "embedder/0/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    note_saved(tmp_path, ["policy", "embedder"])
    return tmp_path


def test_what_was_saved_is_accepted_with_a_new_card(run):
    (run / "policy" / "README.md").write_text("New scores.")
    check_saved(run, "policy")
    check_saved(run, "embedder")


@pytest.mark.parametrize("place", range(8))
def test_no_bit_can_change_unseen(run, place):
    file = run / "embedder" / "0" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 1 << place
    file.write_bytes(content)
    check_saved(run, "policy")
    with pytest.raises(RunError, match=r"embedder/0/model\.safetensors has changed since .* SHA-256"):
        check_saved(run, "embedder")


def test_a_file_that_is_gone_is_named(run):
    (run / "policy" / "config.json").unlink()
    with pytest.raises(RunError, match=r"policy/config\.json is missing\. Restore it"):
        check_saved(run, "policy")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"sha256": {}}', '{"sha256": ["policy"]}', '{"sha256": 3}'])
def test_damaged_hashes_are_named(run, text):
    (run / TRAINED).write_text(text)
    with pytest.raises(RunError, match="trained is damaged"):
        check_saved(run, "policy")


def test_a_run_of_before_has_no_hashes(run):
    (run / TRAINED).write_text("")
    (run / "policy" / "config.json").unlink()
    check_saved(run, "policy")
