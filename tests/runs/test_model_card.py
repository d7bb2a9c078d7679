"""The cards of the trained models: valid for the hub, true to the run, with code that runs."""

import re

import pytest
from huggingface_hub import ModelCard

from langptune_rs.config import load_config
from langptune_rs.runs.model_card import embedder_card, policy_card, write_model_cards

INFO = {"kept": {"users": 943, "items": 1349}, "sessions": {"train": 792, "test": 76}}
SCORE = {"mean": 0.1234, "low": 0.1, "high": 0.15, "p_value": 0.01, "p_holm": 0.02}
RESULTS = {
    "split": "test",
    "num_sessions": 76,
    "num_items": 1349,
    "methods": {"LangPTune-0": {"ndcg@20": {**SCORE, "mean": 0.0456}}, "LangPTune": {"ndcg@20": SCORE}},
}


@pytest.mark.parametrize("card", [policy_card, embedder_card])
def test_a_card_says_what_the_model_is(card):
    text = card(load_config("quickstart"), RESULTS, INFO)
    data = ModelCard(text).data
    assert data.license == "apache-2.0"
    assert data.base_model in {"HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"}
    assert data.library_name in {"transformers", "sentence-transformers"}
    assert "langptune" in data.tags
    assert data.eval_results[0].metric_value == 0.1234
    assert data.eval_results[0].dataset_name == "ml-100k"
    for fact in (
        "943 users, 1,349 items",
        "792 train, 76 test",
        "| LangPTune   | 0.1234 [0.1000, 0.1500] |",
        "learning_rate",
    ):
        assert fact in text
    assert "Not evaluated yet" in card(load_config("quickstart"), None, INFO)


def test_a_card_tells_what_was_trained():
    lora = load_config("quickstart", ["policy.train=lora", "policy.lora_rank=8"])
    assert ModelCard(policy_card(lora, None, {})).data.library_name == "peft"
    assert "LoRA of rank 8" in policy_card(lora, None, {})
    alone = load_config("quickstart", ["method=LangPTune-CL"])
    assert "unchanged" in policy_card(alone, None, {})
    assert "unchanged" not in embedder_card(alone, None, {})


@pytest.mark.parametrize(
    ("model", "base_model"),
    [("google/gemma-2b-it", "google/gemma-2b-it"), ("/models/mine", None), ("./mine/there", None), ("folder", None)],
)
def test_only_published_models_are_named_as_base(model, base_model):
    data = ModelCard(policy_card(load_config("quickstart", [f"policy.model={model}"]), None, {})).data
    assert data.base_model == base_model
    assert data.license == "other"


def test_the_code_decodes_as_many_tokens_as_the_run():
    assert "max_new_tokens=77," in policy_card(load_config("quickstart", ["profile.max_tokens=77"]), None, {})


def test_the_code_gives_the_chat_template_the_arguments_of_the_run():
    card = policy_card(load_config("quickstart", ["policy.template_arguments.enable_thinking=true"]), None, {})
    assert "**{'enable_thinking': True, 'thinking': False}" in card


@pytest.mark.parametrize(
    ("model", "base"), [("google/gemma-2b-it", "google/gemma-2b-it"), ("/models/mine", "path/to/mine")]
)
def test_the_code_for_an_adapter_names_its_base_model(model, base):
    config = load_config("quickstart", ["policy.train=lora", f"policy.model={model}"])
    assert f'from_pretrained("{base}")' in policy_card(config, None, {})


def test_the_code_on_the_cards_runs(tmp_path, monkeypatch):
    from tests.experiments.tiny import make_run

    run = make_run(tmp_path)
    write_model_cards(run, load_config("quickstart"), None, {})
    monkeypatch.chdir(run)
    for folder, wanted in (("policy", "output"), ("embedder", "scores")):
        code = re.search(r"```python\n(.*?)```", (run / folder / "README.md").read_text(), re.DOTALL)[1]
        names = {}
        exec(code, names)
        assert names[wanted].shape[0] == 1
