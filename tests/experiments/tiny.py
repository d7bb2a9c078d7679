"""A finished run in miniature: both models with random weights in their libraries' own formats, and synthetic data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from langptune_rs.config import RunConfig, to_toml

NUM_USERS, NUM_ITEMS = 60, 40
CHAT_TEMPLATE = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}<assistant>"
SPECIAL = ["<pad>", "<eos>", "<unk>"]


def make_models(folder: Path) -> tuple[Path, Path]:
    """Folders of a policy and of an embedder, a few thousand weights each, reproducible."""
    policy, embedder = folder / "tiny-policy", folder / "tiny-embedder"
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    with torch.no_grad():
        llama.get_input_embeddings().weight.normal_(std=0.5)
    llama.save_pretrained(policy)
    tokenizer.save_pretrained(policy)

    bert = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    bert.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=512)
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(embedder), create_model_card=False)
    return policy, embedder


def write_source(folder: Path, num_users: int = NUM_USERS, *, reviews: bool = False) -> Path:
    """items.jsonl and interactions.jsonl: users who choose among the items of one of four kinds.

    With `reviews` they write of all but item 3 what its kind is and who they are.
    """
    folder.mkdir()
    random = np.random.default_rng(0)
    kinds = ["red dragons", "slow trains", "old kitchens", '<b>loud</b> & "sharp" cats']
    items = [
        {"item_id": f"i{i}", "title": f"Story {i} of {kinds[i % 4]}", "description": f"About {kinds[i % 4]}, part {i}."}
        for i in range(NUM_ITEMS)
    ]
    interactions = [
        {
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "rating": float(random.integers(1, 6)),
            "timestamp": 100 * user + t,
            **({"review_text": f"It has {kinds[item % 4]}, says u{user}."} if reviews and item != 3 else {}),
        }
        for user in range(num_users)
        for t, item in enumerate(random.permutation(np.arange(user % 4, NUM_ITEMS, 4)))
    ]
    for name, rows in (("items", items), ("interactions", interactions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def make_run(
    folder: Path, *, method: str = "LangPTune", num_users: int = NUM_USERS, reviews: bool = False, **evaluation: int
) -> Path:
    """A run folder as training leaves it. The trained models differ from the initial ones by noise."""
    policy, embedder = make_models(folder)
    source = write_source(folder / "source", num_users, reviews=reviews)
    run = folder / "run"
    run.mkdir()
    config = tiny_config(policy, embedder, source, method, evaluation)
    (run / "config.toml").write_text(to_toml(config), encoding="utf-8")
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics()), encoding="utf-8")
    _save_trained(config, run)
    return run


def tiny_config(policy: Path, embedder: Path, source: Path, method: str, evaluation: dict[str, int]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "iterations": 2,
            "method": method,
            "data": {"source": str(source), "windows": "all"},
            "policy": {"model": str(policy), "last_layers": 1},
            "embedder": {"model": str(embedder)},
            "profile": {"max_tokens": 12},
            "contrastive": {"steps": 3, "batch_size": 8},
            "rlso": {"steps": 4, "epochs": 2, "batch_size": 8},
            "engine": {"precision": "fp32"},
            "evaluation": {"samples": 2, **evaluation},
        }
    )


def metrics() -> list[dict]:
    """metrics.jsonl of two iterations of three contrastive and four RLSO steps."""
    lines, step = [], 0
    for k in range(2):
        for _ in range(3):
            step += 1
            values = {"contrastive/loss": 4.0 - 0.1 * step, "time/seconds": 1.0, "memory/peak_bytes": 1000 + step}
            lines.append({"step": step, "iteration": k, "phase": "contrastive", **values})
        for t in range(4):
            step += 1
            values = {"rlso/loss": 2.0 - 0.1 * step, "time/seconds": 2.0, "memory/peak_bytes": 2000 + step}
            if t % 2 == 0:
                looks = {"overlong_rate": 0.04, "distinct_share": 0.9, "repetition": 0.05, "entropy": 0.8}
                values |= {f"profile/{name}": value - 0.001 * step for name, value in looks.items()}
                values |= {"reward/mean": 0.1 + 0.01 * step, "kl/reference": 0.02 * step, "profile/copied_share": 0.2}
            lines.append({"step": step, "iteration": k, "phase": "rlso", **values})
        values = {"validation/ndcg@20": 0.03 * step, "validation/ndcg": 0.15, "validation/copied_share": 0.1}
        values |= {"validation/log_likelihood": 0.1 * step - 5, "validation/log_rank": 3 - 0.1 * step}
        lines.append({"step": step, "iteration": k, "phase": "validation", **values})
    return lines


def _save_trained(config: RunConfig, run: Path) -> None:
    from langptune_rs.models.embedder import Embedder
    from langptune_rs.models.policy import Policy

    policy, embedder = Policy.load(config.policy), Embedder.load(config.embedder)
    torch.manual_seed(1)
    with torch.no_grad():
        for model, trains in ((policy.model, config.trains_policy), (embedder.model, config.trains_embedder)):
            for weight in model.parameters():
                weight += trains * 0.3 * torch.randn_like(weight)
    policy.save(run / "policy")
    embedder.save(run / "embedder")


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=2048
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
