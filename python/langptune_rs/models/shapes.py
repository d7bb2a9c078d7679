"""The size of a model, from its configuration only: no weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig

from langptune_rs.errors import ModelError
from langptune_rs.models.folders import check_texts, encoder_folder, explained
from langptune_rs.models.quiet import quiet
from langptune_rs.models.weights import EMBEDDERS, embedder_folder

KNOWN = {
    "smollm2-135m-instruct": ("llama", {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}),
    "google/gemma-2b-it": ("gemma", {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000}),
    "meta-llama/meta-llama-3-8b-instruct": ("llama", {"hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}),
    "mixedbread-ai/mxbai-embed-large-v1": ("bert", {"hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 30522}),
}  # fmt: skip
"""The recipes' models by lower-case name, with the sizes from the config.json of each on the model hub."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide its memory and its work."""

    layers: int
    width: int
    feed_forward: int
    """Of all experts that a token goes through, in a mixture of experts."""
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    weights: int
    """All weights of the model."""
    layer_weights: int
    """Weights of one layer."""
    layer_edges: int
    """Inputs and outputs of the matrices of one layer, summed: LoRA of rank r adds r times as many weights."""
    gated: bool
    """The feed-forward network has a gate beside its first matrix, like Llama's and unlike BERT's."""


def policy_shape(name: str) -> Shape:
    """The shape of a policy: an embedded model's name, a local folder or a hub id.

    Raises `ModelError` for a hub id that neither this package knows nor the hub's cache holds.
    """
    return _shape(_config(name, "policy"), AutoModelForCausalLM)


def embedder_shape(name: str) -> Shape:
    """The shape of an embedder, as `policy_shape`."""
    return _shape(_config(name, "embedder"), AutoModel)


def _config(name: str, role: str) -> PretrainedConfig:
    config: PretrainedConfig
    if name.lower() in KNOWN:
        kind, values = KNOWN[name.lower()]
        config = AutoConfig.for_model(kind, **values)
    else:
        folder = _config_folder(name, role)
        check_texts(folder)
        with explained(f"configuration of the {role} {name!r}", folder):
            config = AutoConfig.from_pretrained(folder)
    return config


def _config_folder(name: str, role: str) -> Path:
    """The folder with the config.json of a model."""
    if role == "embedder" and name.lower() in EMBEDDERS:
        return encoder_folder(embedder_folder(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        folder = encoder_folder(folder)
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{role}.model = {name!r}: there is no config.json in {folder}, so its size is unknown. Give the "
                "folder of a model."
            )
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise ModelError(
            f"The size of the {role} {name!r} is unknown here. `hf download {name} config.json` fetches the one file "
            f"that holds it; or set {role}.model to a local folder."
        )
    return Path(found).parent


def _shape(config: PretrainedConfig, kind: Any) -> Shape:
    """The shape of a model of this configuration and `kind`, one of transformers' auto classes."""
    with quiet(), torch.device("meta"):
        model: nn.Module = kind.from_config(config, trust_remote_code=False)
    layers = next((module for module in model.modules() if isinstance(module, nn.ModuleList)), [nn.Identity()])
    config = config.get_text_config()
    matrices = [module for module in layers[0].modules() if isinstance(module, nn.Linear)]
    heads = getattr(config, "num_attention_heads", None)
    if not heads or not matrices:
        raise ModelError(
            f"The size of a model of type {config.model_type} is unknown here: its layers have no attention heads or "
            "no linear matrices. Choose a transformer such as Llama or BERT."
        )
    experts = getattr(config, "num_experts_per_tok", None)
    feed_forward = getattr(config, "intermediate_size", None) or max(matrix.out_features for matrix in matrices)
    if experts:
        feed_forward = experts * (getattr(config, "moe_intermediate_size", None) or feed_forward)
    return Shape(
        layers=len(layers),
        width=config.hidden_size,
        feed_forward=feed_forward,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        weights=sum(weight.numel() for weight in model.parameters()),
        layer_weights=sum(weight.numel() for weight in layers[0].parameters()),
        layer_edges=sum(matrix.in_features + matrix.out_features for matrix in matrices),
        gated=len(matrices) == 7 or bool(experts),
    )
