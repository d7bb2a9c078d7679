"""Checkpoints that are not whole: no tensor that matters is missing, beside the model's, or in another shape."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.experiments.tiny import make_models
from torch import Tensor
from transformers import AutoTokenizer

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.policy import Policy

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


def changed(folder: Path, into: Path, change: Callable[[Tensors], object], file: str = "model.safetensors") -> Path:
    """A copy of a model with other tensors."""
    shutil.copytree(folder, into)
    tensors = load_file(into / file)
    change(tensors)
    save_file(tensors, into / file, {"format": "pt"})
    return into


def without(*parts: str) -> Callable[[Tensors], None]:
    def remove(tensors: Tensors) -> None:
        names = [name for name in tensors if any(part in name for part in parts)]
        assert names
        for name in names:
            del tensors[name]

    return remove


def adding(**shapes: tuple[int, ...]) -> Callable[[Tensors], None]:
    def add(tensors: Tensors) -> None:
        tensors.update({name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()})

    return add


WRONG_POLICIES = {
    "a layer": (without("layers.1."), r"lacks model\.layers\.1\.input_layernorm\.weight, .* and 4 more"),
    "a matrix": (without("layers.0.self_attn.v_proj"), r"lacks model\.layers\.0\.self_attn\.v_proj\.weight\."),
    "the final norm": (without("model.norm"), r"lacks model\.norm\.weight"),
    "the embedding": (without("embed_tokens"), r"lacks .*embed_tokens\.weight"),
    "a layer too many": (
        adding(model__layers__2__mlp__up_proj__weight=(48, 32)),
        r"no place for model\.layers\.2\.mlp",
    ),
    "a bias": (adding(model__layers__0__self_attn__q_proj__bias=(32,)), r"no place for .*q_proj\.bias"),
    "positions": (adding(model__embed_positions__weight=(9, 32)), r"no place for model\.embed_positions"),
    "a shape": (
        lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}),
        r"another shape model\.norm\.weight \(31 instead of 32\)",
    ),
    "a width": (
        lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": torch.ones(47, 32)}),
        r"another shape model\.layers\.1\.mlp\.up_proj\.weight \(47x32 instead of 48x32\)",
    ),
}


@pytest.mark.parametrize("fault", WRONG_POLICIES)
def test_a_policy_that_is_not_whole_is_refused(models: tuple[Path, Path], tmp_path: Path, fault: str) -> None:
    change, message = WRONG_POLICIES[fault]
    folder = changed(models[0], tmp_path / "policy", change)
    with pytest.raises(ModelError, match=message):
        Policy.load(PolicyConfig(model=str(folder), last_layers=1))
    with pytest.raises(ModelError, match=message):
        Policy.from_folder(folder, PolicyConfig(last_layers=1))


def test_an_untied_head_that_is_missing_is_an_error(models: tuple[Path, Path], tmp_path: Path) -> None:
    folder = changed(models[0], tmp_path / "policy", lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ModelError, match=r"lacks lm_head\.weight"):
        Policy.load(PolicyConfig(model=str(folder), last_layers=1))


HARMLESS = {
    "a tied head": lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}),
    "rotary frequencies": adding(model__layers__0__self_attn__rotary_emb__inv_freq=(4,)),
    "another task's head": adding(score__weight=(1, 32), v_head__summary__weight=(1, 32)),
}


@pytest.mark.parametrize("addition", HARMLESS)
def test_what_does_not_matter_beside_a_policy_is_accepted(
    models: tuple[Path, Path], tmp_path: Path, addition: str
) -> None:
    folder = changed(models[0], tmp_path / "policy", HARMLESS[addition])
    Policy.load(PolicyConfig(model=str(folder), last_layers=1))


WRONG_EMBEDDERS = {
    "a layer": (without("encoder.layer.0.output"), r"lacks encoder\.layer\.0\.output"),
    "the words": (without("word_embeddings"), r"lacks embeddings\.word_embeddings\.weight"),
    "a layer too many": (adding(encoder__layer__1__output__dense__bias=(32,)), r"no place for encoder\.layer\.1"),
    "a prefixed layer too many": (
        adding(bert__encoder__layer__1__output__dense__bias=(32,)),
        r"no place for .*layer\.1",
    ),
    "fewer words": (
        lambda tensors: tensors.update({"embeddings.word_embeddings.weight": torch.ones(200, 32)}),
        r"another shape embeddings\.word_embeddings\.weight \(200x32 instead of 259x32\)",
    ),
}


@pytest.mark.parametrize("fault", WRONG_EMBEDDERS)
def test_an_embedder_that_is_not_whole_is_refused(models: tuple[Path, Path], tmp_path: Path, fault: str) -> None:
    change, message = WRONG_EMBEDDERS[fault]
    folder = changed(models[1], tmp_path / "embedder", change)
    with pytest.raises(ModelError, match=message):
        Embedder.load(EmbedderConfig(model=str(folder)))


def test_what_does_not_matter_in_an_embedder_is_accepted(
    models: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No pooler, which nothing reads; a head for masked words; positions that are counted anew."""

    def change(tensors: Tensors) -> None:
        without("pooler")(tensors)
        adding(cls__predictions__bias=(259,))(tensors)
        tensors["embeddings.position_ids"] = torch.arange(512)[None]

    expected = Embedder.load(EmbedderConfig(model=str(models[1]))).encode_items(["some text"])
    embedder = Embedder.load(EmbedderConfig(model=str(changed(models[1], tmp_path / "embedder", change))))
    assert (embedder.encode_items(["some text"]) == expected).all()
    assert not [record for record in caplog.records if "REPORT" in record.getMessage()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layers.1.mlp.up_proj.lora_A"), r"adapter in .* lacks .*layers\.1\.mlp\.up_proj\.lora_A\.weight"),
        (
            adding(base_model__model__model__layers__2__mlp__up_proj__lora_A__weight=(16, 32)),
            r"no place for .*layers\.2",
        ),
        (lambda tensors: None, None),
    ],
    ids=["lacks", "has too many", "whole"],
)
def test_an_adapter_that_is_not_whole_is_refused(
    models: tuple[Path, Path], tmp_path: Path, change: Callable[[Tensors], object], message: str | None
) -> None:
    config = PolicyConfig(model=str(models[0]), train="lora")
    Policy.load(config).save(tmp_path / "saved")
    folder = changed(tmp_path / "saved", tmp_path / "adapter", change, "adapter_model.safetensors")
    if message is None:
        Policy.from_folder(folder, config)
        return
    with pytest.raises(ModelError, match=message):
        Policy.from_folder(folder, config)


def test_what_is_saved_is_whole(models: tuple[Path, Path], tmp_path: Path) -> None:
    policy = Policy.load(PolicyConfig(model=str(models[0]), last_layers=1))
    policy.save(tmp_path / "policy")
    again = Policy.from_folder(tmp_path / "policy", policy.config)
    for name, weight in policy.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])
    embedder = Embedder.load(EmbedderConfig(model=str(models[1])))
    embedder.save(tmp_path / "embedder")
    again = Embedder.from_folder(tmp_path / "embedder", embedder.config)
    assert (again.encode_items(["a"]) == embedder.encode_items(["a"])).all()


def with_token(folder: Path, into: Path, **named: str) -> Path:
    """A copy of a model whose tokenizer has a special token more than the model has embeddings."""
    shutil.copytree(folder, into)
    tokenizer = AutoTokenizer.from_pretrained(into)
    tokenizer.add_special_tokens(named)
    assert tokenizer.convert_tokens_to_ids(next(iter(named.values()))) == 259
    tokenizer.save_pretrained(into)
    return into


@pytest.mark.parametrize("kind", ["pad_token", "sep_token", "cls_token", "mask_token"])
def test_a_token_that_a_policy_never_meets_needs_no_embedding(
    models: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    """Derivatives of Llama 2 have <pad> = 32000 and 32,000 embeddings: prompts are packed, not padded."""
    folder = with_token(models[0], tmp_path / "policy", **{kind: "<new>"})
    policy = Policy.load(PolicyConfig(model=str(folder), last_layers=1))
    assert max(policy.encode_prompt("What is <new>?")) < 259


@pytest.mark.parametrize("kind", ["eos_token", "unk_token", "bos_token"])
def test_a_token_that_a_policy_may_meet_needs_an_embedding(
    models: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    folder = with_token(models[0], tmp_path / "policy", **{kind: "<new>"})
    with pytest.raises(ModelError, match=r"it has 259, but there are '<new>' \(id 259\)"):
        Policy.load(PolicyConfig(model=str(folder), last_layers=1))


def test_the_token_for_padding_needs_an_embedding_where_an_embedder_pads(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_token(models[1], tmp_path / "padding", pad_token="<new>")
    Embedder.load(EmbedderConfig(model=str(folder))).encode_items(["a", "a longer text"])
    separating = with_token(models[1], tmp_path / "separating", sep_token="<new>")
    with pytest.raises(ModelError, match=r"'<new>' \(id 259\)"):
        Embedder.load(EmbedderConfig(model=str(separating)))
    monkeypatch.setattr("langptune_rs.models.embedder.UNPADDED", ())
    with pytest.raises(ModelError, match=r"'<new>' \(id 259\)"):
        Embedder.load(EmbedderConfig(model=str(folder)))
