"""The policy: a causal language model that writes profiles, split where its trainable part begins.

With `train = "last-layers"` only the last N decoder layers learn. Everything below them, the trunk, is frozen, so its
hidden states are computed once for a rollout batch and serve every later pass over that batch. `Policy.trunk` runs
the frozen part and `Policy.head` is the module that is trained: the last N layers, the final norm and the output
matrix. With LoRA every layer learns, the trunk is the embedding lookup and the head holds all layers.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from langptune_rs.errors import ModelError
from langptune_rs.models.attention import GROUPED_SDPA
from langptune_rs.models.config import PolicyConfig
from langptune_rs.models.quiet import quiet
from langptune_rs.models.weights import policy_folder


class Policy:
    """A causal language model with its tokenizer and its chat template.

    `model` is the whole network (used for generation and saving), `head` the part that is trained and shares its
    weights with `model`.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PolicyConfig):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.eos_ids = end_of_turn_ids(model, tokenizer)
        self.head, self._trunk = _split(model, config)

    @classmethod
    def load(cls, config: PolicyConfig, dtype: torch.dtype = torch.float32) -> Policy:
        """The pre-trained policy of a recipe, with only the weights that it trains marked as trainable.

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
        model.requires_grad_(False)
        if config.train == "lora":
            model = _add_lora(model, config)
        else:
            for module in _trained_modules(model, config):
                module.requires_grad_(True)
        return cls(model, tokenizer, config)

    @classmethod
    def from_folder(cls, folder: Path, config: PolicyConfig, dtype: torch.dtype = torch.float32) -> Policy:
        """A policy saved by `save`, for inference."""
        if (folder / "adapter_config.json").is_file():
            from peft import PeftModel

            base = _open(policy_folder(config.model), dtype)
            with quiet():
                model = PeftModel.from_pretrained(base, folder)
        else:
            model = _open(folder, dtype)
        return cls(model.requires_grad_(False), AutoTokenizer.from_pretrained(folder), config)

    def save(self, folder: Path) -> None:
        """Write weights (safetensors; the adapter alone for LoRA) and tokenizer in the libraries' own formats."""
        with quiet():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and profile together that the model can attend to."""
        return self.model.config.max_position_embeddings

    def encode_prompt(self, user_message: str) -> list[int]:
        """Token ids of a one-turn chat with `user_message`, ready for the assistant's answer."""
        messages = [{"role": "user", "content": user_message}]
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    def decode(self, tokens: list[int]) -> str:
        """The text of a profile, without special tokens."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    @torch.no_grad()
    def trunk(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """Hidden states (batch, length, width) at the input of `head`, by the frozen layers below it."""
        if self._trunk is None:
            return self.model.get_input_embeddings()(input_ids)
        outputs = self._trunk(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        return outputs.last_hidden_state


def end_of_turn_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends the assistant's turn: all of the generation config's, and the tokenizer's own."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def _open(source: Path | str, dtype: torch.dtype) -> PreTrainedModel:
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, attn_implementation=GROUPED_SDPA, trust_remote_code=False
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _add_lora(model: PreTrainedModel, config: PolicyConfig) -> PreTrainedModel:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with quiet():
        return get_peft_model(model, lora)


def _trained_modules(model: PreTrainedModel, config: PolicyConfig) -> list[nn.Module]:
    """The modules that learn with `train = "last-layers"`."""
    decoder = model.get_decoder()
    if config.last_layers > len(decoder.layers):
        raise ModelError(
            f"policy.last_layers = {config.last_layers}, but {config.model!r} has {len(decoder.layers)} decoder "
            f"layers. Choose at most {len(decoder.layers)}."
        )
    modules = list(decoder.layers[-config.last_layers :])
    if config.train_final_norm:
        modules.append(decoder.norm)
    if config.train_lm_head:
        if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
            raise ModelError(
                f"policy.train_lm_head: the head of {config.model!r} is tied to its input embeddings, so training it "
                "would change the frozen trunk. Set policy.train_lm_head = false."
            )
        modules.append(model.get_output_embeddings())
    return modules


def _split(model: PreTrainedModel, config: PolicyConfig) -> tuple[nn.Module, nn.Module | None]:
    """(head, trunk): two views of `model` that share its layers; no trunk where every layer learns."""
    decoder = model.get_decoder()
    cut = 0 if config.train == "lora" else len(decoder.layers) - config.last_layers
    if cut == 0:
        return model, None
    trunk = _view(decoder, layers=decoder.layers[:cut], norm=nn.Identity())
    name = next(name for name, module in model.named_children() if module is decoder)
    head = _view(model, **{name: _view(decoder, layers=decoder.layers[cut:])})
    return head, trunk


def _view(module: nn.Module, **replaced: nn.Module) -> nn.Module:
    """A module that shares parameters and buffers with `module` but has some children replaced."""
    view = copy.copy(module)
    view._modules = {**module._modules, **replaced}
    if "layers" in replaced:
        view.config = copy.copy(module.config)
        view.config.num_hidden_layers = len(replaced["layers"])
    return view
