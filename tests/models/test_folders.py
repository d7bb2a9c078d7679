"""Model folders with a damaged file: an error names it, and no library's own error comes out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from tests.experiments.tiny import make_models

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.folders import check_files, explained
from langptune_rs.models.policy import Policy
from langptune_rs.models.shapes import embedder_shape, policy_shape
from langptune_rs.models.tokens import token_counters

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a96\nsize 538090408\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy in two shards, and an embedder with a Dense module."""
    policy, embedder = make_models(tmp_path_factory.mktemp("models"))
    tensors = load_file(policy / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, policy / file, {"format": "pt"})
    (policy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, held in halves.items() for name in held}}
    (policy / "model.safetensors.index.json").write_text(json.dumps(index))
    encoder = SentenceTransformer(str(embedder), device="cpu")
    encoder.append(Dense(32, 16))
    encoder.save(str(embedder), create_model_card=False)
    return policy, embedder


def cut(share: float) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        data = file.read_bytes()
        file.write_bytes(data[: int(share * len(data))])

    return change


def points(file: Path) -> None:
    file.write_text(POINTER)


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 100)


def overwritten(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 8)


WEIGHTS = {"empty": cut(0), "four bytes": lambda file: file.write_bytes(b"abcd"), "cut in the header": cut(0.02)}
WEIGHTS |= {"cut short": cut(0.6), "a pointer": points, "longer": longer, "something else": overwritten}
TEXTS = {"empty": cut(0), "cut short": cut(0.5), "a pointer": points, "something else": overwritten}


@pytest.mark.parametrize(
    ("file", "damage"), [("model-1.safetensors", "cut short"), *[("model-2.safetensors", damage) for damage in WEIGHTS]]
)
def test_a_damaged_shard_of_a_policy_is_named(
    models: tuple[Path, Path], tmp_path: Path, file: str, damage: str
) -> None:
    folder = shutil.copytree(models[0], tmp_path / "policy")
    WEIGHTS[damage](folder / file)
    for opened in (
        lambda: Policy.load(PolicyConfig(model=str(folder), last_layers=1)),
        lambda: Policy.from_folder(folder, PolicyConfig(last_layers=1)),
    ):
        with pytest.raises(ModelError, match=rf"policy/{file} is (a Git LFS pointer|cut short|damaged)"):
            opened()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *[("config.json", damage) for damage in TEXTS],
        *[("tokenizer.json", damage) for damage in TEXTS],
        *[
            (f"{name}.json", "cut short")
            for name in ("tokenizer_config", "generation_config", "model.safetensors.index")
        ],
    ],
)
def test_a_damaged_file_beside_a_policy_is_named(
    models: tuple[Path, Path], tmp_path: Path, file: str, damage: str
) -> None:
    folder = shutil.copytree(models[0], tmp_path / "policy")
    TEXTS[damage](folder / file)
    with pytest.raises(ModelError, match=rf"policy/{file} is (a Git LFS pointer|no JSON)"):
        Policy.load(PolicyConfig(model=str(folder), last_layers=1))
    if file == "config.json":
        with pytest.raises(ModelError, match=r"policy/config\.json is"):
            policy_shape(str(folder))
    if file == "tokenizer.json":
        with pytest.raises(ModelError, match=r"policy/tokenizer\.json is"):
            token_counters("none", str(folder)).histories(["text"])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *[("2_Dense/model.safetensors", damage) for damage in WEIGHTS],
        *[("modules.json", damage) for damage in TEXTS],
        *[(name, "cut short") for name in ("model.safetensors", "config.json", "tokenizer.json")],
        *[
            (name, "cut short")
            for name in ("sentence_bert_config.json", "1_Pooling/config.json", "2_Dense/config.json")
        ],
    ],
)
def test_a_damaged_file_of_an_embedder_is_named(
    models: tuple[Path, Path], tmp_path: Path, file: str, damage: str
) -> None:
    folder = shutil.copytree(models[1], tmp_path / "embedder")
    (WEIGHTS | TEXTS if file.endswith("json") else WEIGHTS)[damage](folder / file)
    with pytest.raises(ModelError, match=rf"embedder/{file} is (a Git LFS pointer|no JSON|cut short|damaged)"):
        Embedder.load(EmbedderConfig(model=str(folder)))
    if file in ("config.json", "modules.json"):
        with pytest.raises(ModelError, match=rf"embedder/{file} is"):
            embedder_shape(str(folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *[("config.json", text) for text in ("[]", "null", "3", "{}", '{"model_type": "no-such"}', '"a"')],
        *[("tokenizer.json", text) for text in ("[]", "{}", '{"model": {}}', "null")],
        *[("tokenizer_config.json", text) for text in ("[]", "7")],
        *[
            ("model.safetensors.index.json", text)
            for text in ("[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}')
        ],
        ("config.json", '{"model_type": "llama", "hidden_size": "wide"}'),
        ("config.json", '{"model_type": "llama", "num_attention_heads": 0}'),
    ],
)
def test_sound_json_that_is_no_policy_is_a_model_error(
    models: tuple[Path, Path], tmp_path: Path, file: str, content: str
) -> None:
    folder = shutil.copytree(models[0], tmp_path / "policy")
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match="policy"):
        Policy.load(PolicyConfig(model=str(folder), last_layers=1))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *[("modules.json", text) for text in ("{}", "[]", "[3]", '[{"path": 3}]', '[{"name": "0"}]', "null")],
        *[("config.json", text) for text in ("[]", "{}")],
        *[
            ("1_Pooling/config.json", text)
            for text in ("[]", '{"word_embedding_dimension": 32, "pooling_mode": "none such"}')
        ],
        *[("2_Dense/config.json", text) for text in ("[]", '{"in_features": 31, "out_features": 16}', "{}")],
    ],
)
def test_sound_json_that_is_no_embedder_is_a_model_error(
    models: tuple[Path, Path], tmp_path: Path, file: str, content: str
) -> None:
    folder = shutil.copytree(models[1], tmp_path / "embedder")
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match="embedder"):
        Embedder.load(EmbedderConfig(model=str(folder)))


def test_a_module_in_pickle_form_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models[1], tmp_path / "embedder")
    torch.save(load_file(folder / "2_Dense" / "model.safetensors"), folder / "2_Dense" / "pytorch_model.bin")
    Embedder.load(EmbedderConfig(model=str(folder)))  # the safetensors file is the one that is read
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"2_Dense/pytorch_model\.bin is pickled.*safetensors only"):
        Embedder.load(EmbedderConfig(model=str(folder)))
    (folder / "2_Dense" / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded: .*model\.safetensors"):
        Embedder.load(EmbedderConfig(model=str(folder)))


def test_modules_inside_a_module_are_looked_at(models: tuple[Path, Path], tmp_path: Path) -> None:
    """A Router keeps the modules of each route in folders inside its own."""
    folder = shutil.copytree(models[1], tmp_path / "embedder")
    inner = folder / "2_Dense" / "query_0_Dense"
    inner.mkdir()
    torch.save({}, inner / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"query_0_Dense/pytorch_model\.bin is pickled"):
        check_files(folder)


def test_files_that_nothing_reads_may_be_anything(models: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models[0], tmp_path / "policy")
    for name in ("model.onnx", "README.md", "consolidated.safetensors", "original/params.json", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        points(folder / name)
    torch.save({}, folder / "pytorch_model.bin")
    for name in ("predictions.json", "train.json", "vocab_counts.json", "pytorch_model.bin.index.json"):
        (folder / name).write_text('{"user": 1}\n{"user": 2}\n')
    for name in ("corpus.txt", "reward.model", "report.jinja", "training_config.json"):
        points(folder / name)
    Policy.load(PolicyConfig(model=str(folder), last_layers=1))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such type", "no such type. Check"),
        ("no such type.", "no such type. Check"),
        ("which\n  type?", "which type? Check"),
        ("line 3:", "line 3. Check"),
        ("", "KeyError. Check"),
        ("word " * 200, "word word … Check"),
    ],
)
def test_what_a_library_says_is_a_sentence_before_the_advice(said: str, shown: str) -> None:
    error = KeyError if not said else OSError
    with pytest.raises(ModelError) as raised, explained("policy 'x'", "/models/x"):
        raise error(*[said] * bool(said))
    assert f"{shown} that its files are complete" in str(raised.value)
    assert len(str(raised.value)) < 700
