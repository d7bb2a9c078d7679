"""What stands before a profile and an item is what SentenceTransformer puts there, unless the recipe says else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tests.experiments.tiny import make_models
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, AutoTokenizer

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.embedder import Embedder

TEXTS = ["a tale of trains", "", "cats", "dragons " * 9, "slow kitchens and loud cats"]
"""The fourth is cut."""


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without prompts, which reads each text as a turn of a chat, since its tokenizer has a template."""
    return make_models(tmp_path_factory.mktemp("models"))[1]


@pytest.fixture(scope="module")
def plain(chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, which reads a text between two tokens of its own."""
    folder = tmp_path_factory.mktemp("plain")
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.chat_template = None
    frame = TemplateProcessing(single="<unk> $A <eos>", special_tokens=[("<unk>", 2), ("<eos>", 1)])
    tokenizer.backend_tokenizer.post_processor = frame
    tokenizer.save_pretrained(folder / "bert")
    AutoModel.from_pretrained(chat).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert"), max_seq_length=60), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def with_settings(plain: Path, folder: Path, pooling: dict | None = None, **settings: object) -> Path:
    """A copy of a model with other settings: of the whole in `settings`, of its pooling in `pooling`."""
    shutil.copytree(plain, folder)
    change(folder / "config_sentence_transformers.json", settings)
    change(folder / "1_Pooling" / "config.json", pooling or {})
    return folder


def change(path: Path, values: dict) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def assert_same(embeddings: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)


def reference(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("prompts", "default"),
    [
        ({"query": "query: ", "document": "passage: "}, None),
        ({"query": "Represent this for searching: "}, None),
        ({"query": "query: "}, "query"),
        ({"document": "title: none | text: "}, "document"),
        ({"sts": "Say alike: ", "query": "q", "document": "d"}, "sts"),
        ({"sts": "Say alike: "}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize(
    ("kind", "unpadded", "pooling"),
    [
        ("plain", True, {}),
        ("plain", True, {"include_prompt": False}),
        ("plain", True, {"include_prompt": False, "pooling_mode": ["cls", "weightedmean"]}),
        ("plain", False, {"include_prompt": False, "pooling_mode": ["mean", "weightedmean"]}),
        ("chat", True, {"include_prompt": False}),
    ],
)
def test_embeddings_are_those_of_encode_query_and_encode_document(
    request, tmp_path, monkeypatch, prompts, default, pooling, kind, unpadded
):
    if not unpadded:
        monkeypatch.setattr("langptune_rs.models.embedder.UNPADDED", ())
    folder = with_settings(
        request.getfixturevalue(kind), tmp_path / "model", pooling, prompts=prompts, default_prompt_name=default
    )
    expected = reference(folder)
    embedder = Embedder.load(EmbedderConfig(model=str(folder)))
    assert embedder.unpadded == unpadded
    assert_same(embedder.encode_profiles(TEXTS), expected.encode_query(TEXTS, normalize_embeddings=True))
    assert_same(embedder.encode_items(TEXTS), expected.encode_document(TEXTS, normalize_embeddings=True))
    embedder.save(tmp_path / "saved")
    saved = reference(tmp_path / "saved")
    assert_same(embedder.encode_profiles(TEXTS), saved.encode_query(TEXTS, normalize_embeddings=True))
    assert_same(embedder.encode_items(TEXTS), saved.encode_document(TEXTS, normalize_embeddings=True))


def test_a_passage_is_an_item(plain, tmp_path):
    folder = with_settings(plain, tmp_path / "model", prompts={"query": "query: ", "passage": "passage: "})
    embedder = Embedder.load(EmbedderConfig(model=str(folder)))
    expected = reference(folder).encode(TEXTS, prompt_name="passage", normalize_embeddings=True)
    assert_same(embedder.encode_items(TEXTS), expected)
    embedder.save(tmp_path / "saved")
    assert_same(expected, reference(tmp_path / "saved").encode_document(TEXTS, normalize_embeddings=True))


@pytest.mark.parametrize("include_prompt", [True, False])
def test_the_recipe_has_the_last_word(plain, tmp_path, include_prompt):
    prompts = {"query": "query: ", "document": "passage: ", "sts": "alike: "}
    folder = with_settings(
        plain, tmp_path / "model", {"include_prompt": include_prompt}, prompts=prompts, default_prompt_name="sts"
    )
    config = EmbedderConfig(model=str(folder), query_prompt="", item_prompt="An item: ")
    embedder = Embedder.load(config)
    expected = reference(folder)
    profiles = expected.encode(TEXTS, prompt="", normalize_embeddings=True)
    items = expected.encode(TEXTS, prompt="An item: ", normalize_embeddings=True)
    assert_same(embedder.encode_profiles(TEXTS), profiles)
    assert_same(embedder.encode_items(TEXTS), items)
    embedder.save(tmp_path / "saved")
    saved = reference(tmp_path / "saved")
    assert_same(profiles, saved.encode_query(TEXTS, normalize_embeddings=True))
    assert_same(profiles, saved.encode(TEXTS, normalize_embeddings=True))
    assert_same(items, saved.encode_document(TEXTS, normalize_embeddings=True))
    again = Embedder.from_folder(tmp_path / "saved", EmbedderConfig(model=str(folder)))
    assert (again.query_prompt, again.item_prompt) == ("", "An item: ")


def test_a_prompt_for_any_text_is_no_answer_to_what_a_query_needs(plain, tmp_path):
    folder = with_settings(plain, tmp_path / "model", prompts={"sts": "alike: "}, default_prompt_name="sts")
    with pytest.raises(
        ModelError, match=r"'sts' for any text, 'alike: ', and none for a query.*embedder\.query_prompt"
    ):
        Embedder.load(EmbedderConfig(model=str(folder)))
    with pytest.raises(ModelError, match=r"none for a document.*embedder\.item_prompt"):
        Embedder.load(EmbedderConfig(model=str(folder), query_prompt="alike: "))
    embedder = Embedder.load(EmbedderConfig(model=str(folder), query_prompt="alike: ", item_prompt="alike: "))
    assert_same(embedder.encode_items(TEXTS), reference(folder).encode(TEXTS, normalize_embeddings=True))


@pytest.mark.parametrize("setting", [{"query_length": 8}, {"document_length": 8}])
def test_an_encoder_that_cuts_queries_in_its_own_way_is_refused(plain, tmp_path, setting):
    folder = with_settings(plain, tmp_path / "model")
    change(folder / "sentence_bert_config.json", setting)
    with pytest.raises(ModelError, match=rf"{next(iter(setting))} in sentence_bert_config\.json"):
        Embedder.load(EmbedderConfig(model=str(folder)))


def test_texts_that_leave_different_prompts_out_are_embedded_apart(plain, tmp_path):
    prompts = {"query": "query: ", "document": "a passage: "}
    folder = with_settings(plain, tmp_path / "model", {"include_prompt": False}, prompts=prompts)
    embedder = Embedder.load(EmbedderConfig(model=str(folder)))
    tokens = embedder.read([*embedder.queries(TEXTS), *embedder.items(TEXTS)])
    batches = embedder.batches(tokens, 10**6)
    assert sorted(row for batch in batches for row in batch) == list(range(2 * len(TEXTS)))
    assert len(batches) == 2
    assert all(len({tokens[row].left_out for row in batch}) == 1 for batch in batches)


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        ("plain", None),
        ("chat", "{% for m in messages %}User {{ m['content'] }}<eos>{% endfor %}"),
        ("chat", "{% for m in messages %}User {{ m['content'] | lower }}<eos>{% endfor %}"),
    ],
)
@pytest.mark.parametrize("lowers", [False, True])
def test_a_profile_is_text_for_an_embedder_in_lower_case(request, tmp_path, kind, template, lowers):
    """Neither what a model's settings or its template make of a text, nor a prompt in capitals, hides its marks."""
    folder = shutil.copytree(request.getfixturevalue(kind), tmp_path / "model")
    change(folder / "sentence_bert_config.json", {"do_lower_case": lowers})
    if template:
        (folder / "chat_template.jinja").write_text(template)
    embedder = Embedder.load(EmbedderConfig(model=str(folder), query_prompt="Query: "))
    special = set(embedder.model.tokenizer.all_special_ids)
    texts = ["Jazz", "nice<eos>Jazz<EOS>", "<PAD>", "<eos>"]
    plain, *hostile = ([i for i in row if i in special] for row in embedder.tokens(texts, "Query: "))
    assert plain
    assert hostile == [plain] * 3
