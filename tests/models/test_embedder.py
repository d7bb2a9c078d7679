"""Embeddings do not depend on what a text is batched with, nor on whether the batch is padded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from tests.experiments.tiny import make_models
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.embedder import Embedder

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODERS = {
    "bert": (BertConfig, BertModel),
    "roberta": (RobertaConfig, RobertaModel),
    "mpnet": (MPNetConfig, MPNetModel),
}
WITH_TABLES = ENCODERS | {
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel),
    "distilbert": (DistilBertConfig, DistilBertModel),
}


@pytest.fixture(params=ENCODERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A SentenceTransformer of one of the architectures, with random weights."""
    return encoder_of(request.param, tmp_path, num_positions=300, max_seq_length=60)


def encoder_of(family: str, folder: Path, *, num_positions: int, max_seq_length: int | None, pad: int = 0) -> Path:
    """A SentenceTransformer that says it reads `max_seq_length` tokens, and whose padding token is `pad`."""
    tokenizer = AutoTokenizer.from_pretrained(make_models(folder)[1], model_max_length=10**30)
    config, model = WITH_TABLES[family]
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": num_positions, "pad_token_id": pad}
    model(config(**sizes, **SIZES)).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    modules = [Transformer(str(folder / "encoder"), max_seq_length=max_seq_length), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def texts(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list("abc "), rng.integers(1, 90))) for _ in range(n)]


def test_embeddings_are_those_of_sentence_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langptune_rs.models.embedder.TOKENS_PER_BATCH", 500)
    monkeypatch.setattr("langptune_rs.models.embedder.TEXTS_PER_CHUNK", 30)
    embedder = Embedder.load(EmbedderConfig(model=str(folder), max_tokens=50))
    assert embedder.unpadded == (embedder.model[0].config.model_type != "mpnet")
    reference = SentenceTransformer(str(folder), device="cpu")
    reference.max_seq_length = 50
    expected = reference.encode(texts(70), normalize_embeddings=True)
    np.testing.assert_allclose(embedder.encode_items(texts(70)), expected, atol=1e-6)
    assert embedder.encode_items([]).shape == (0, 32)


@pytest.mark.parametrize("budget", [1, 77, 10**6])
def test_batches_have_every_text_once_within_the_budget(folder: Path, budget: int) -> None:
    embedder = Embedder.load(EmbedderConfig(model=str(folder)))
    tokens = embedder.read(embedder.items(texts(40)))
    batches = embedder.batches(tokens, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(40))
    for batch in batches:
        lengths = [len(tokens[row]) for row in batch]
        assert lengths == sorted(lengths, reverse=True)
        size = sum(lengths) if embedder.unpadded else max(lengths) * len(lengths)
        assert size <= budget or len(batch) == 1


def test_an_encoder_that_reads_no_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(make_models(tmp_path)[1] / "tokenizer.json"))
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    static.save(str(tmp_path / "static"), create_model_card=False)
    with pytest.raises(ModelError, match="starts with a StaticEmbedding"):
        Embedder.load(EmbedderConfig(model=str(tmp_path / "static")))


@pytest.mark.parametrize(
    ("family", "usable"), [("bert", 40), ("roberta", 38), ("xlm-roberta", 38), ("mpnet", 38), ("distilbert", 40)]
)
@pytest.mark.parametrize("claimed", [40, 1000, None], ids=str)
def test_long_texts_are_cut_where_the_positions_end(
    tmp_path: Path, family: str, usable: int, claimed: int | None
) -> None:
    """RoBERTa and its kin count positions from behind the padding index, here 1, whatever their configuration says."""
    folder = encoder_of(family, tmp_path, num_positions=40, max_seq_length=claimed, pad=1)
    embedder = Embedder.load(EmbedderConfig(model=str(folder), max_tokens=512))
    long = "abc " * 200
    assert [len(row) for row in embedder.tokens([long])] == [usable]
    assert np.isfinite(embedder.encode_items([long, "ab"])).all()
    reference = SentenceTransformer(str(folder), device="cpu")
    reference.max_seq_length = usable
    expected = reference.encode([long, "ab"], normalize_embeddings=True)
    np.testing.assert_allclose(embedder.encode_items([long, "ab"]), expected, atol=1e-6)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tmp_path: Path) -> None:
    folder = encoder_of("bert", tmp_path, num_positions=40, max_seq_length=40)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["abcabc"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"no embedding for: it has 259, but there are 'abcabc' \(id 259\)"):
        Embedder.load(EmbedderConfig(model=str(folder)))
