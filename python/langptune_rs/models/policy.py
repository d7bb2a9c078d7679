"""The policy: a causal language model that writes profiles, split where its trainable part begins.

With `train = "last-layers"` only the last N decoder layers train. The layers before the `cut` are frozen, so their
hidden states are computed once, while the profiles are written, and serve every later pass over the rollout batch.
With LoRA every layer trains, and only the embedding is before the cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.acceptance import is_fusable, what_differs
from langptune_rs.models.attention import PACKED, Layout
from langptune_rs.models.chat import Chat
from langptune_rs.models.completeness import IN_CHATS, check_adapter, check_tensors, check_vocabulary
from langptune_rs.models.decoder import Decoder, last_hidden, run_layers
from langptune_rs.models.folders import check_files, explained
from langptune_rs.models.lean import make_lean
from langptune_rs.models.mixed import widen
from langptune_rs.models.precision import gradient_dtype
from langptune_rs.models.quiet import quiet
from langptune_rs.models.weights import policy_folder

_BY_LENGTH = ("dynamic", "longrope")
"""Rotary positions that depend on the longest text of the batch, so that other users would change a profile."""
_USABLE = (
    "Use a decoder with full attention and rotary positions, such as Llama, Mistral, Mixtral, Qwen 2 and 3 with or "
    "without experts, Gemma, Phi 2 and 3, StableLM, GPT-NeoX or SmolLM 2."
)


class Policy:
    """A causal language model with its tokenizer and its chat template.

    Attributes:
        decoder: layers, final norm and rotary positions of `model`.
        cut: the number of layers that are frozen; those after it train.
        dtype: the precision in which profiles are written.
        trained_dtype: the precision of what trains, and of log-probabilities.
        gradient_dtype: the precision of the products that gradients are made of.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PolicyConfig):
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.dtype = cast(torch.dtype, model.get_input_embeddings().weight.dtype)
        self.trained_dtype = self.gradient_dtype = self.dtype
        self._is_in_one_precision = False
        self.chat = Chat(tokenizer, config, named_end_of_turn_ids(model))
        self.eos_ids = self.chat.eos_ids
        self.decoder = decoder_of(model, config)
        self.cut = 0 if config.train == "lora" else len(self.decoder.layers) - config.last_layers
        model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        check_vocabulary(tokenizer, model, config.model, IN_CHATS)
        if difference := what_differs(model, self.decoder, self.logits):
            raise ModelError(
                f"The policy {config.model!r} ({model.config.model_type}) does more with its tokens than its layers "
                f"do: it {difference}, which is not supported. {_USABLE}"
            )

    @classmethod
    def load(
        cls, config: PolicyConfig, dtype: torch.dtype = torch.float32, trained_dtype: torch.dtype | None = None
    ) -> Policy:
        """The pre-trained policy of a recipe, with only the weights that it trains marked as trainable.

        What trains is kept in `trained_dtype`, the rest in `dtype`.

        Raises `ModelError` when the model cannot be found or cannot be trained as the recipe asks.
        """
        folder = policy_folder(config.model)
        model = _open(folder, config, dtype)
        tokenizer = _open_tokenizer(folder)
        with explained(f"policy {config.model!r}", folder):
            return cls.for_training(model, tokenizer, config, trained_dtype)

    @classmethod
    def for_training(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: PolicyConfig,
        trained_dtype: torch.dtype | None = None,
    ) -> Policy:
        """The policy of a model, with only the weights that the recipe trains marked as trainable.

        The model must be loaded with `attn_implementation=PACKED`. Raises `ModelError` when it cannot be trained as the
        recipe asks.
        """
        decoder_of(model, config)
        model.requires_grad_(False)
        if config.train == "lora":
            model = _add_lora(model, config)
        else:
            for module in _trained_modules(model, config):
                module.requires_grad_(True)
        policy = cls(model, tokenizer, config)
        if trained_dtype is not None:
            policy._train_in(trained_dtype)
        return policy

    @classmethod
    def from_folder(cls, folder: Path, config: PolicyConfig, dtype: torch.dtype = torch.float32) -> Policy:
        """A policy saved by `save`, for inference."""
        if (folder / "adapter_config.json").is_file():
            from peft import PeftModel

            base = _open(policy_folder(config.model), config, dtype)
            check_files(folder)
            with quiet(), explained("adapter", folder):
                model = cast(PreTrainedModel, PeftModel.from_pretrained(base, folder))
                check_adapter(model, folder)
        else:
            model = _open(folder, config, dtype)
        tokenizer = _open_tokenizer(folder)
        with explained("policy", folder):
            return cls(model.requires_grad_(False), tokenizer, config)

    def save(self, folder: Path) -> None:
        """Write weights (safetensors; only the adapter for LoRA) and tokenizer in the libraries' own formats.

        All weights are written in the precision in which profiles are written.
        """
        with quiet(), self.in_one_precision():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _train_in(self, dtype: torch.dtype) -> None:
        """Keep what trains in `dtype`, so that everything after the cut is computed in it."""
        self.trained_dtype, self.gradient_dtype = dtype, gradient_dtype(self.dtype, dtype)
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
        is_fusable = self.is_fusable  # of the layers as they are
        for module in (*self.decoder.layers[self.cut :], self.decoder.norm):
            widen(module, dtype, self.gradient_dtype)
            if is_fusable and dtype == torch.float32:
                make_lean(module)

    @contextmanager
    def in_one_precision(self) -> Iterator[None]:
        """Inside the block every weight is in `dtype`, for work that needs speed more than exactness.

        What trains comes back as it was, so it must not change inside the block.
        """
        exact = [(parameter, parameter.data) for parameter in self.model.parameters() if parameter.dtype != self.dtype]
        for parameter, values in exact:
            parameter.data = values.to(self.dtype)
        self._is_in_one_precision = True
        try:
            yield
        finally:
            self._is_in_one_precision = False
            for parameter, values in exact:
                parameter.data = values

    @property
    def max_context(self) -> int:
        """Tokens of prompt and profile together that the model can attend to."""
        config = self.model.config
        return int(min(config.max_position_embeddings, getattr(config, "sliding_window", None) or 2**31))

    @cached_property
    def is_fusable(self) -> bool:
        """Whether profiles can be written by the kernels of the core; see `FusedDecoder`."""
        return self.model.device.type == "cpu" and is_fusable(self.model, self.decoder)

    def encode_prompt(self, user_message: str) -> list[int]:
        """See `Chat.encode_prompt`."""
        return self.chat.encode_prompt(user_message)

    def decode(self, tokens: list[int]) -> str:
        """See `Chat.decode`."""
        return self.chat.decode(tokens)

    def states(self, input_ids: Tensor, position_ids: Tensor, layout: Layout) -> Tensor:
        """Hidden states at the cut (1, tokens, width), after the frozen layers, of token ids (1, tokens)."""
        embedded = self.model.get_input_embeddings()(input_ids)
        return run_layers(self.decoder, self.decoder.layers[: self.cut], embedded, position_ids, layout)

    def hidden(
        self, states: Tensor, position_ids: Tensor, layout: Layout, rows: Tensor, *, checkpointing: bool = False
    ) -> Tensor:
        """Final hidden states (rows, width) at `rows`, which the output matrix reads, from `states` at the cut.

        They are computed in `trained_dtype`, except within `in_one_precision`.
        """
        states = states.to(self.dtype if self._is_in_one_precision else self.trained_dtype)
        layers = self.decoder.layers[self.cut : -1]
        before_last = run_layers(self.decoder, layers, states, position_ids, layout, checkpointing=checkpointing)
        return last_hidden(self.decoder, before_last, position_ids, layout, rows, checkpointing=checkpointing)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, vocabulary) from final hidden states (rows, width)."""
        return self.capped(output_matrix(self.model)(hidden))

    def capped(self, logits: Tensor) -> Tensor:
        """Logits within `final_softcap`, if the model has one."""
        softcap = self.final_softcap
        return torch.tanh(logits / softcap) * softcap if softcap else logits

    @property
    def final_softcap(self) -> float | None:
        """The bound of some models' logits, softcap * tanh(logits / softcap); None without one."""
        return getattr(self.model.config, "final_logit_softcapping", None)


def named_end_of_turn_ids(model: PreTrainedModel) -> list[int]:
    """The tokens that end the assistant's turn by the model's generation config."""
    named = model.generation_config.eos_token_id
    return named if isinstance(named, list) else [] if named is None else [named]


def output_matrix(model: PreTrainedModel) -> nn.Module:
    """The module that makes logits of final hidden states."""
    return cast(nn.Module, model.get_output_embeddings())  # type: ignore[no-untyped-call]  # untyped in transformers


def decoder_of(model: PreTrainedModel, config: PolicyConfig) -> Decoder:
    """The decoder of a model. Raises `ModelError` for one whose layers cannot be run over packed rows."""
    decoder = Decoder.of(_decoder_module(model))
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    softcap = getattr(model.config, "attn_logit_softcapping", None)
    rotary = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    reasons = [f"layers of {', '.join(sorted(kinds))}"] * (kinds != {"full_attention"})
    reasons += ["attention with capped scores"] * bool(softcap)
    reasons += [f"{rotary} positions"] * (rotary in _BY_LENGTH)
    reasons += ["a decoder that does not give its layers their attention and rotary positions"] * (decoder is None)
    if reasons or decoder is None:
        raise ModelError(
            f"The policy {config.model!r} ({model.config.model_type}) has {' and '.join(reasons)}, which is not "
            f"supported. {_USABLE}"
        )
    return decoder


def _decoder_module(model: PreTrainedModel) -> nn.Module:
    return cast(nn.Module, model.get_decoder())  # type: ignore[no-untyped-call]  # untyped in transformers


def _open(source: Path, config: PolicyConfig, dtype: torch.dtype) -> PreTrainedModel:
    check_files(source)
    with quiet(), explained(f"policy {config.model!r}", source):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # an error of ours names them
        )
    model, info = loaded
    decoder_of(model, config)
    check_tensors(model, info, config.model)
    model.set_attn_implementation(PACKED)
    return cast(PreTrainedModel, model.to("cuda" if torch.cuda.is_available() else "cpu"))


def _open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    with explained("tokenizer", folder):
        return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(folder))


def _add_lora(model: PreTrainedModel, config: PolicyConfig) -> PreTrainedModel:
    """The model inside peft's wrapper, which has all attributes of the model."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft divides it by r, so that fractions work
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with quiet():
        return cast(PreTrainedModel, get_peft_model(model, lora))


def _trained_modules(model: PreTrainedModel, config: PolicyConfig) -> list[nn.Module]:
    """The modules that train with `train = "last-layers"`."""
    decoder = decoder_of(model, config)
    if config.last_layers > len(decoder.layers):
        raise ModelError(
            f"policy.last_layers = {config.last_layers}, but {config.model!r} has {len(decoder.layers)} decoder "
            f"layers. Choose at most {len(decoder.layers)}."
        )
    modules = list(decoder.layers[-config.last_layers :])
    if config.train_final_norm:
        modules.append(decoder.norm)
    if config.train_lm_head:
        output = output_matrix(model)
        if output.weight is model.get_input_embeddings().weight:
            raise ModelError(
                f"policy.train_lm_head: the head of {config.model!r} is tied to its input embeddings, so training it "
                "would change the frozen embedding. Set policy.train_lm_head = false."
            )
        modules.append(output)
    return modules
