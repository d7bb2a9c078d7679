"""Small tokenizers of every kind, and the chat templates of well-known families in short form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
THINKS_ALWAYS = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
LLAMA_3 = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '<|eot_id|>' }}"
    "{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
PHI_3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
)
GLM = (
    "[gMASK]{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NEEDS_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('Start with a system turn') }}{% endif %}" + CHATML
)
NEEDS_PARTS = CHATML.replace("m['content']", "m['content'][0]['text']").replace(
    "{% for m in messages %}", "{% for m in messages if m['content'] is not string %}"
)
REWRITES = CHATML.replace("m['content']", "m['content'] | replace('\r\n', '\n') | replace('\n\n', '\n')")
REFUSES = "{{ raise_exception('I take no messages.') }}"
THINK = [AddedToken(token, special=False) for token in ("<think>", "</think>")]
FAMILIES: dict[str, tuple[str, list[str | AddedToken]]] = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"]),
    "qwen 3": (QWEN_3, ["<|im_start|>", "<|im_end|>", *THINK]),
    "thinks always": (THINKS_ALWAYS, ["<|im_start|>", "<|im_end|>", *THINK]),
    "llama 3": (LLAMA_3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>", AddedToken("\n\n", special=False)]),
    "mistral": (MISTRAL, ["[INST]", "[/INST]"]),
    "phi 3": (
        PHI_3,
        [AddedToken(f"<|{t}|>", special=True, rstrip=True, lstrip=t == "end") for t in ("user", "assistant", "end")],
    ),
    "glm": (GLM, ["[gMASK]", *(AddedToken(f"<|{t}|>", special=False) for t in ("user", "assistant"))]),
    "needs system": (NEEDS_SYSTEM, ["<|im_start|>", "<|im_end|>"]),
    "needs parts": (NEEDS_PARTS, ["<|im_start|>", "<|im_end|>"]),
    "rewrites": (REWRITES, ["<|im_start|>", "<|im_end|>"]),
}
"""Templates with the control tokens that they write."""
END_OF_TURN = {
    "chatml": "<|im_end|>",
    "qwen 3": "<|im_end|>",
    "thinks always": "<|im_end|>",
    "llama 3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "phi 3": "<|end|>",
    "glm": "<|user|>",
    "needs system": "<|im_end|>",
    "needs parts": "<|im_end|>",
    "rewrites": "<|im_end|>",
}


def byte_level() -> tuple[Tokenizer, dict[str, str]]:
    """One token a byte, as GPT 2, Llama 3 and Qwen have them at the bottom."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: i for i, sign in enumerate(["<s>", "</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}


def merging() -> tuple[Tokenizer, dict[str, str]]:
    """Pieces with spaces in them, as Llama 2 has them. Its merges make </s> of a text even without added tokens."""
    signs = ["▁", *(chr(i) for i in range(33, 127)), "\n", "é"]
    pieces = ["<unk>", "<s>", "</s>", *signs, "</", "s>", "▁a", *(f"<0x{i:02X}>" for i in range(256))]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("▁", "a")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def unigram() -> tuple[Tokenizer, dict[str, str]]:
    """Sentence pieces as XLM-R has them. The best piece for the text </s> is the control token; full width folds."""
    control = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    signs = ["▁", "\n", *(chr(i) for i in range(33, 127))]
    pieces = [*((c, 0.0) for c in control), *((s, -5.0) for s in signs), ("▁a", -4.0), ("</", -6.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    return tokenizer, {**names, "pad_token": "<pad>", "mask_token": "<mask>"}


def word_piece() -> tuple[Tokenizer, dict[str, str]]:
    """Words in lower case as BERT has them."""
    signs = [chr(i) for i in range(33, 127) if not chr(i).isupper()]
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*control, *signs, *(f"##{s}" for s in signs)]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    names = ("pad", "unk", "cls", "sep", "mask")
    return tokenizer, {f"{name}_token": token for name, token in zip(names, control, strict=True)}


KINDS = {"bytes": byte_level, "merges": merging, "unigram": unigram, "words": word_piece}


def tokenizer_of(
    kind: str, added: Sequence[str | AddedToken] = (), template: str | None = None, **options: Any
) -> PreTrainedTokenizerBase:
    """A tokenizer of a kind, or "slow" for one written in Python, with added tokens and a chat template.

    An added token that is given as a text is special.
    """
    tokenizer: PreTrainedTokenizerBase
    if kind == "slow":
        tokenizer = ByT5Tokenizer(extra_ids=0, bos_token="<s>")
    else:
        backend, names = KINDS[kind]()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **(names | options))
    tokenizer.add_tokens([AddedToken(t, special=True) if isinstance(t, str) else t for t in added])
    tokenizer.chat_template = template
    return tokenizer


def of_family(family: str, kind: str = "bytes") -> PreTrainedTokenizerBase:
    """A tokenizer with the control tokens and the chat template of a family."""
    template, added = FAMILIES[family]
    return tokenizer_of(kind, added, template)
