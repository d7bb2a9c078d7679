"""Profiles that survive the process that wrote them."""

from langptune_rs.training.phase_profiles import KeptProfiles


def test_whole_batches_survive_and_one_that_was_cut_off_does_not(tmp_path):
    path = tmp_path / "checkpoints" / "profiles.jsonl"
    first = KeptProfiles(path)
    assert (first.batches, first.num_profiles) == ([], 0)
    first.add([[1, 2], [3]])
    first.add([[4]])
    with path.open("a") as file:
        file.write("[[5, 6")
    second = KeptProfiles(path)
    assert (second.batches, second.num_profiles) == ([[[1, 2], [3]], [[4]]], 3)
    second.add([[5, 6]])
    assert KeptProfiles(path).batches == [[[1, 2], [3]], [[4]], [[5, 6]]]
    second.remove()
    assert not path.exists()
