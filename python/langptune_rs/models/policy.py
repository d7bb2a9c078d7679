"""The policy: a causal language model that writes profiles, split where its trainable part begins.

With `train = "last-layers"` only the last N decoder layers train. The layers before the `cut` are frozen, so their
hidden states are computed once, while the profiles are written, and serve every later pass over the rollout batch.
With LoRA every layer trains, and only the embedding is before the cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.attention import PACKED, Causal, Layout
from langptune_rs.models.decoder import Decoder, last_hidden, run_layers
from langptune_rs.models.mixed import accept_mixed
from langptune_rs.models.quiet import quiet
from langptune_rs.models.weights import policy_folder

_BY_LENGTH = ("dynamic", "longrope")
"""Rotary positions that depend on the longest text of the batch, so that other users would change a profile."""
_USABLE = (
    "Use a decoder with full attention and rotary positions, such as Llama, Mistral, Qwen 2 and 3, Gemma or SmolLM 2."
)


class Policy:
    """A causal language model with its tokenizer and its chat template.

    Attributes:
        decoder: embedding, layers and final norm of `model`.
        cut: the number of layers that are frozen; those after it train.
        dtype: the precision in which profiles are written.
        trained_dtype: the precision of what trains, and of log-probabilities.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PolicyConfig):
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.dtype = self.trained_dtype = cast(torch.dtype, model.get_input_embeddings().weight.dtype)
        self.eos_ids = end_of_turn_ids(model, tokenizer)
        self.decoder = _decoder(model)
        self.cut = 0 if config.train == "lora" else len(self.decoder.layers) - config.last_layers
        model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        self._check_logits()

    @classmethod
    def load(
        cls, config: PolicyConfig, dtype: torch.dtype = torch.float32, trained_dtype: torch.dtype | None = None
    ) -> Policy:
        """The pre-trained policy of a recipe, with only the weights that it trains marked as trainable.

        What trains is kept in `trained_dtype`, the rest in `dtype`.

        Raises `ModelError` when the model cannot be found or cannot be trained as the recipe asks.
        """
        folder = policy_folder(config.model)
        model = _open(folder, dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if not tokenizer.chat_template:
            raise ModelError(
                f"The model {config.model!r} has no chat template, so it cannot be asked for a profile. "
                "Use an instruction-tuned model."
            )
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
        _check_attention(model, config)
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

            base = _open(policy_folder(config.model), dtype)
            with quiet():
                model = cast(PreTrainedModel, PeftModel.from_pretrained(base, folder))
        else:
            model = _open(folder, dtype)
        return cls(model.requires_grad_(False), AutoTokenizer.from_pretrained(folder), config)

    def save(self, folder: Path) -> None:
        """Write weights (safetensors; only the adapter for LoRA) and tokenizer in the libraries' own formats.

        All weights are written in the precision in which profiles are written.
        """
        with quiet(), self.in_one_precision():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _train_in(self, dtype: torch.dtype) -> None:
        """Keep what trains in `dtype`, so that everything after the cut is computed in it."""
        self.trained_dtype = dtype
        for parameter in (*self._trained_parameters(), *self.decoder.norm.parameters()):
            parameter.data = parameter.data.to(dtype)
        if dtype != self.dtype:
            for layer in self.decoder.layers[self.cut :]:
                accept_mixed(layer)

    def _trained_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @contextmanager
    def in_one_precision(self) -> Iterator[None]:
        """Inside the block every weight is in `dtype`, for work that needs speed more than exactness.

        What trains comes back as it was, so it must not change inside the block.
        """
        exact = [(parameter, parameter.data) for parameter in self.model.parameters() if parameter.dtype != self.dtype]
        for parameter, values in exact:
            parameter.data = values.to(self.dtype)
        try:
            yield
        finally:
            for parameter, values in exact:
                parameter.data = values

    @property
    def max_context(self) -> int:
        """Tokens of prompt and profile together that the model can attend to."""
        config = self.model.config
        return int(min(config.max_position_embeddings, getattr(config, "sliding_window", None) or 2**31))

    def encode_prompt(self, user_message: str) -> list[int]:
        """Token ids of a one-turn chat with `user_message`, ready for the assistant's answer."""
        messages = [{"role": "user", "content": user_message}]
        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return cast(list[int], ids)

    def decode(self, tokens: list[int]) -> str:
        """The text of a profile, without special tokens."""
        return cast(str, self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

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
        states = states.to(self.decoder.norm.get_parameter("weight").dtype)
        layers = self.decoder.layers[self.cut : -1]
        before_last = run_layers(self.decoder, layers, states, position_ids, layout, checkpointing=checkpointing)
        return last_hidden(self.decoder, before_last, position_ids, layout, rows, checkpointing=checkpointing)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, vocabulary) from final hidden states (rows, width)."""
        logits: Tensor = output_matrix(self.model)(hidden)
        softcap = self.final_softcap
        return torch.tanh(logits / softcap) * softcap if softcap else logits

    @property
    def final_softcap(self) -> float | None:
        """The bound of some models' logits, softcap * tanh(logits / softcap); None without one."""
        return getattr(self.model.config, "final_logit_softcapping", None)

    @torch.no_grad()
    def _check_logits(self) -> None:
        """Raise `ModelError` if the model does more than its layers do, such as scaling its embeddings or logits.

        The model's own logits of a few tokens are compared with those of this class.
        """
        ids = torch.arange(8, device=self.model.device)[None]
        positions = torch.arange(8, device=self.model.device)[None]
        states = self.states(ids, positions, Causal())
        ours = self.logits(self.hidden(states, positions, Causal(), positions[0])).float()
        own = self.model(ids, use_cache=False).logits[0].float()
        error = (ours - own).norm(dim=1) / own.norm(dim=1)
        if not error.median() < 0.1:  # in bfloat16 about 0.01, and more for single tokens where much cancels
            raise ModelError(
                f"The policy {self.config.model!r} ({self.model.config.model_type}) does more with its tokens than its "
                f"layers do, which is not supported. {_USABLE}"
            )


def end_of_turn_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends the assistant's turn: those of the generation config, and the tokenizer's own."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def output_matrix(model: PreTrainedModel) -> nn.Module:
    """The module that makes logits of final hidden states."""
    return cast(nn.Module, model.get_output_embeddings())  # type: ignore[no-untyped-call]  # untyped in transformers


def _decoder(model: PreTrainedModel) -> Decoder:
    return cast(Decoder, model.get_decoder())  # type: ignore[no-untyped-call]  # untyped in transformers


def _check_attention(model: PreTrainedModel, config: PolicyConfig) -> None:
    """Raise `ModelError` for a model whose layers cannot be run over packed rows."""
    decoder = _decoder(model)
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    softcap = getattr(model.config, "attn_logit_softcapping", None)
    rotary = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kinds != {"full_attention"} or softcap or rotary in _BY_LENGTH or not hasattr(decoder, "rotary_emb"):
        reason = f"layers of {', '.join(sorted(kinds))}" + (" with capped scores" if softcap else "")
        reason += f" and {rotary} positions" if rotary in _BY_LENGTH else ""
        raise ModelError(
            f"The policy {config.model!r} ({model.config.model_type}) has {reason}, which is not supported. {_USABLE}"
        )


def _open(source: Path | str, dtype: torch.dtype) -> PreTrainedModel:
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, attn_implementation=PACKED, trust_remote_code=False
        )
    return cast(PreTrainedModel, model.to("cuda" if torch.cuda.is_available() else "cpu"))


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
    decoder = _decoder(model)
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
