"""Whether a checkpoint holds the whole model: each tensor that is read, in its shape, and nothing that has no place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from langptune_rs.errors import ModelError

_SHOWN = 5
"""Tensors that an error names."""
_UNREAD = "pooler"
"""The part of an encoder that makes one vector of a text of its own; sentence-transformers pools tokens instead."""
IN_CHATS = ("bos", "eos", "unk")
"""Special tokens that a policy can meet, beside those that its chat template names."""
AROUND_TEXTS = (*IN_CHATS, "sep", "cls")
"""Those that an embedder can meet, since its tokenizer puts some of them around texts."""
IN_BATCHES = (*AROUND_TEXTS, "pad")
"""Those that an embedder can meet whose texts are padded to one length."""
_LOADER = "from_pretrained"

LoadingInfo = Mapping[str, Any]
"""What transformers' `output_loading_info` tells of a checkpoint."""


def check_tensors(model: PreTrainedModel, info: LoadingInfo, name: str) -> None:
    """Raise `ModelError` naming tensors that a checkpoint lacks, has in another shape, or has beside the model's.

    transformers would fill what is missing with random numbers. Not an error is what it knows to be harmless (a tied
    matrix, buffers that are computed), a missing pooler, which nothing reads, and a head for another task.
    """
    missing = [key for key in info["missing_keys"] if not _is_unread(key)]
    mismatched = [
        f"{key} ({_shape(found)} instead of {_shape(wanted)})" for key, found, wanted in info["mismatched_keys"]
    ]
    unexpected = [key for key in info["unexpected_keys"] if _is_of(model, key) and not _is_unread(key)]
    faults = [
        f"{what} {_named(keys)}"
        for what, keys in (("lacks", missing), ("has in another shape", mismatched), ("has no place for", unexpected))
        if keys
    ]
    if faults:
        raise ModelError(
            f"The checkpoint of {name!r} is not the model that its config.json describes: it {'; it '.join(faults)}. "
            "Download or copy it again, or save it again with `save_pretrained`."
        )


def check_adapter(model: nn.Module, folder: Path) -> None:
    """Raise `ModelError` naming tensors that a LoRA adapter in `folder` lacks or has beside those of `model`."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        held = set(file.keys())
    wanted = set(get_peft_model_state_dict(model))
    if held != wanted:
        faults = [f"lacks {_named(wanted - held)}"] * bool(wanted - held)
        faults += [f"has no place for {_named(held - wanted)}"] * bool(held - wanted)
        raise ModelError(
            f"The adapter in {folder} is not the one that its adapter_config.json describes: "
            f"it {'; it '.join(faults)}. Copy the run again, or train it again."
        )


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str, met: Iterable[str]) -> None:
    """Raise `ModelError` for a tokenizer with tokens that the model has no embedding for.

    A special token that is neither among those `met` nor in the chat template is never met, and may have none: the one
    for padding, for example, where nothing is padded.
    """
    num_embeddings = len(cast(Tensor, model.get_input_embeddings().weight))
    seen = {getattr(tokenizer, f"{kind}_token_id", None) for kind in met}
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(
        tokenizer.all_special_ids
    )
    template = str(tokenizer.chat_template or "")
    beyond = {
        token: i
        for token, i in tokenizer.get_vocab().items()
        if i >= num_embeddings and (i not in special or i in seen or token in template)
    }
    if beyond:
        raise ModelError(
            f"The tokenizer of {name!r} has tokens that the model has no embedding for: it has {num_embeddings:,}, "
            f"but there are {_named(f'{token!r} (id {i})' for token, i in beyond.items())}. Use the tokenizer that "
            "belongs to the model, or save the model with more embeddings after `resize_token_embeddings`."
        )


@contextmanager
def loading_infos() -> Iterator[list[tuple[PreTrainedModel, LoadingInfo]]]:
    """Inside the block, what transformers tells of each checkpoint is kept, for libraries that load models with it."""
    found: list[tuple[PreTrainedModel, LoadingInfo]] = []
    original = PreTrainedModel.__dict__[_LOADER]

    def from_pretrained(cls: type[PreTrainedModel], *args: Any, **options: Any) -> PreTrainedModel:
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        loaded: tuple[PreTrainedModel, LoadingInfo] = original.__func__(cls, *args, **options | told)
        found.append(loaded)
        return loaded[0]

    setattr(PreTrainedModel, _LOADER, classmethod(from_pretrained))
    try:
        yield found
    finally:
        setattr(PreTrainedModel, _LOADER, original)


def _is_unread(key: str) -> bool:
    """Whether a tensor belongs to the pooler of an encoder, in whose checkpoint a prefix may come first."""
    return _UNREAD in key.split(".")[:2]


def _is_of(model: PreTrainedModel, key: str) -> bool:
    """Whether a tensor's name places it in the model or in one of its parts. Heads for other tasks stand beside it."""
    parts = {name for module in (model, model.base_model) for name, _ in module.named_children()}
    return key.partition(".")[0] in {model.base_model_prefix, *parts}


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes)) or "a number"


def _named(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more
