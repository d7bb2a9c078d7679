"""Model cards: what each trained model is, what it was trained on, how well it does and how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from langptune_rs.config import RunConfig, to_toml
from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE, mean_text
from langptune_rs.evaluation.tables import markdown_table
from langptune_rs.files import write_text
from langptune_rs.models.chat_template import told
from langptune_rs.runs.paths import without_folders

EMBEDDED_MODELS = {
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "all-minilm-l6-v2": "sentence-transformers/all-MiniLM-L6-v2",
}
"""Where the models that come as packages were published, both under Apache-2.0."""


def policy_card(config: RunConfig, results: dict[str, Any] | None, info: dict[str, Any]) -> str:
    """The model card of `policy/`, Markdown with the hub's YAML front matter.

    `results` is the content of results.json, or None before the evaluation; `info` that of dataset.toml.
    """
    lora = config.policy.train == "lora"
    if not config.trains_policy:
        trained = "It is the base model, unchanged: this run trained only the embedder."
    else:
        weights = (
            f"LoRA of rank {config.policy.lora_rank}"
            if lora
            else f"its last {config.policy.last_layers} decoder layer(s)"
        )
        trained = (
            f"Trained by {config.rlso.objective.upper()} ({weights}) with the recommender's own view of a profile, "
            f"`{config.rlso.reward}`, as the reward: it writes what makes the embedder rank the user's next item "
            "high."
        )
    return "\n\n".join(
        [
            _front_matter(config, results, config.policy.model, "peft" if lora else "transformers", "text-generation"),
            "# LangPTune policy: writes user profiles",
            f"A language model that reads what a user chose and writes a short profile of their taste. {trained}",
            _load_lora(config) if lora else _load_policy(config),
            "The user message is an instruction followed by the history, oldest first, as `langptune profile` builds "
            "it. Decode greedily; a profile ends with the end-of-turn token.",
            *_common(config, results, info),
        ]
    )


def embedder_card(config: RunConfig, results: dict[str, Any] | None, info: dict[str, Any]) -> str:
    """The model card of `embedder/`, Markdown with the hub's YAML front matter; arguments as in `policy_card`."""
    trained = (
        "Trained by contrastive learning (InfoNCE): a profile against the item its user chose next, among the targets "
        f"of the whole batch, temperature {config.contrastive.temperature:g}."
        if config.trains_embedder
        else "It is the base model, unchanged: this run trained only the policy."
    )
    return "\n\n".join(
        [
            _front_matter(config, results, config.embedder.model, "sentence-transformers", "sentence-similarity"),
            "# LangPTune embedder: ranks items by a user profile",
            f"A text encoder that puts user profiles and items into one space. {trained}",
            _LOAD_EMBEDDER,
            *_common(config, results, info),
        ]
    )


def write_model_cards(run: Path, config: RunConfig, results: dict[str, Any] | None, info: dict[str, Any]) -> None:
    """Write the README.md of `run/policy` and of `run/embedder`."""
    write_text(run / "policy" / "README.md", policy_card(config, results, info))
    write_text(run / "embedder" / "README.md", embedder_card(config, results, info))


def _front_matter(config: RunConfig, results: dict[str, Any] | None, model: str, library: str, pipeline: str) -> str:
    base_model = _hub_id(model)
    embedded = model.lower() in EMBEDDED_MODELS
    data = ModelCardData(
        license="apache-2.0" if embedded else "other",
        license_name=None if embedded else "as-the-base-model",
        base_model=base_model,
        library_name=library,
        pipeline_tag=pipeline,
        language=["en"],
        tags=["recommender-system", "user-profiles", "langptune"],
        model_name=f"{config.method} {pipeline}" if results else None,
        eval_results=_eval_results(config, results, pipeline) if results else None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _eval_results(config: RunConfig, results: dict[str, Any], pipeline: str) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=pipeline,
            task_name="recommendation",
            dataset_type=_data_name(config),
            dataset_name=_data_name(config),
            dataset_split=results["split"],
            metric_type=metric,
            metric_name=metric,
            metric_value=round(score["mean"], 6),
        )
        for metric, score in results["methods"][config.method].items()
    ]


def _hub_id(model: str) -> str | None:
    """The published name of a base model; None for a local folder, whose path means nothing elsewhere."""
    if model.lower() in EMBEDDED_MODELS:
        return EMBEDDED_MODELS[model.lower()]
    is_local = Path(model).expanduser().exists() or model.startswith((".", "~", "/")) or model.count("/") != 1
    return None if is_local else model


def _data_name(config: RunConfig) -> str:
    """The source's name; for a folder the last part of its path."""
    return Path(config.data.source).name


def _load_policy(config: RunConfig) -> str:
    arguments = told(config.policy)  # a template that does not know one ignores it
    return f"""## Load it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("policy")
tokenizer = AutoTokenizer.from_pretrained("policy")
messages = [{{"role": "user", "content": "..."}}]
asked = {{"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}}
inputs = tokenizer.apply_chat_template(messages, **asked, **{arguments!r})
output = model.generate(**inputs, max_new_tokens={config.profile.max_tokens}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""


def _load_lora(config: RunConfig) -> str:
    base = _hub_id(config.policy.model) or f"path/to/{Path(config.policy.model).name}"
    return f"""## Load it

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "policy")
tokenizer = AutoTokenizer.from_pretrained("policy")
```"""


_LOAD_EMBEDDER = """## Load it

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("embedder")
profiles = model.encode_query(["..."], normalize_embeddings=True)
items = model.encode_document(["Title: ...", "Title: ..."], normalize_embeddings=True)
scores = profiles @ items.T
```"""
"""The prompts of either side are in the model's own configuration."""


def _common(config: RunConfig, results: dict[str, Any] | None, info: dict[str, Any]) -> list[str]:
    return [
        "## Data",
        _data_section(config, info),
        "## Scores",
        _scores_section(config, results),
        "## Recipe",
        f"```toml\n{to_toml(without_folders(config)).strip()}\n```",
        "Made with `langptune train`. The method is LangPTune, Language-based Profile Tuning.",
    ]


def _data_section(config: RunConfig, info: dict[str, Any]) -> str:
    """A list of the source, the split and the counts in dataset.toml."""
    facts = [f"- source: {_data_name(config)}", f"- split: {config.data.split}, seed {config.data.seed}"]
    for name, section in (("kept after filters", "kept"), ("sessions", "sessions")):
        if counts := info.get(section):
            facts.append(f"- {name}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}")
    return "\n".join(facts)


def _scores_section(config: RunConfig, results: dict[str, Any] | None) -> str:
    if results is None:
        return "Not evaluated yet: run `langptune evaluate`."
    metrics = list(results["methods"][config.method])
    rows = [(method, *map(mean_text, scores.values())) for method, scores in results["methods"].items()]
    return (
        f"{results['num_sessions']} {results['split']} sessions ranked over {results['num_items']} items, history "
        "excluded, one greedy profile each; in brackets the 95% bootstrap interval. log_rank is better where it is "
        f"lower; log_likelihood is at temperature {LIKELIHOOD_TEMPERATURE:g}, and a dash where a method has no "
        "similarities.\n\n"
        f"{markdown_table(('method', *metrics), rows)}\n\n"
        f"{config.method} is this policy and this embedder together, LangPTune-0 the same two before training."
    )
