"""Counting tokens takes a tokenizer, and no weights."""

import json

import pytest

from langptune_rs.errors import ModelError
from langptune_rs.models import weights
from langptune_rs.models.tokens import token_counters


def test_the_embedded_policy_s_tokens_are_counted_without_its_weights(tmp_path, monkeypatch):
    whole = token_counters("all-minilm-l6-v2", str(weights.policy_folder("smollm2-135m-instruct")))
    monkeypatch.setenv("LANGPTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_convert", lambda gguf, folder: pytest.fail("weights are converted"))
    for _ in range(2):
        counters = token_counters("all-minilm-l6-v2", "smollm2-135m-instruct")
        assert counters.histories.name == whole.histories.name
        assert counters.histories(["Three short words"]).tolist() == whole.histories(["Three short words"]).tolist()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_without_weights_has_a_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    assert weights.policy_tokenizer_folder(str(tmp_path)) == tmp_path
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        weights.policy_folder(str(tmp_path))
    with pytest.raises(ModelError, match=r"is no SentenceTransformer folder"):
        weights.embedder_tokenizer_folder(str(tmp_path))
