"""Recipes, overrides, and what is said about wrong ones."""

import subprocess
import sys
import tomllib
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from langptune_rs.config import RunConfig, list_recipes, load_config, to_toml
from langptune_rs.config.policy import OWN_ARGUMENTS
from langptune_rs.errors import ConfigError


@pytest.mark.parametrize("name", list_recipes())
def test_a_shipped_recipe_survives_being_written_and_read(name, tmp_path):
    config = load_config(name)
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_config(tmp_path / "config.toml") == config


def leaves() -> list[tuple[str, str, object]]:
    """Section ("" for none), key, and the type of its values, for every key of a recipe."""
    found = []
    for name, field in RunConfig.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        found += [(name, key, f.annotation) for key, f in inner.items()] if inner else [("", name, field.annotation)]
    return found


def values_of(annotation: object) -> st.SearchStrategy:
    """Values that a key of this type may have, and some that it may not."""
    options = [
        st.just(None),
        st.booleans(),
        st.integers(0, 5000),
        st.floats(0, 10, allow_nan=False),
        st.text(max_size=12),
        st.sampled_from(["none", "", " query: ", 'a"b\\', "x\ny", "#", "true", "7", "[1]", "\x7f"]),
    ]
    literals = [value for part in (annotation, *get_args(annotation)) for value in get_args(part)]
    words = [value for value in literals if isinstance(value, str)]
    return st.one_of(st.sampled_from(words), *options) if words else st.one_of(options)


@pytest.mark.parametrize(
    ("section", "key", "annotation"), leaves(), ids=lambda part: part if isinstance(part, str) else ""
)
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_reads_back_equal(section, key, annotation, data, tmp_path):
    """Every key of every section, unset values included."""
    value = data.draw(values_of(annotation))
    try:
        config = RunConfig.model_validate({section: {key: value}} if section else {key: value})
    except ValidationError:
        return
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_config(tmp_path / "config.toml") == config
    (tmp_path / "given.toml").write_text(to_toml(config, only_given=True), encoding="utf-8")
    again = load_config(tmp_path / "given.toml")
    assert again == config
    name = key if section is None else section
    assert (getattr(again, name).model_fields_set if section else {key}) == {key}
    assert not again.evaluation.model_fields_set or section == "evaluation"


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8")).filter(lambda name: name not in OWN_ARGUMENTS),
        st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
        max_size=4,
    )
)
def test_arguments_of_a_chat_template_read_back_equal(arguments):
    if any(isinstance(value, str) and value.lower() in ("true", "false") for value in arguments.values()):
        return
    config = RunConfig.model_validate({"policy": {"template_arguments": arguments}})
    again = RunConfig.model_validate(tomllib.loads(to_toml(config))).policy.template_arguments
    assert again == arguments
    assert [type(value) for value in again.values()] == [type(value) for value in arguments.values()]


@pytest.mark.parametrize("key", ["data.max_history_tokens", "data.max_item_tokens", "profile.instruction"])
def test_a_key_that_may_be_unset_is_unset_by_none(key, tmp_path):
    section, name = key.split(".")
    config = load_config("quickstart", [f"{key}=none"])
    assert getattr(getattr(config, section), name) is None
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_config(tmp_path / "config.toml") == config
    assert getattr(getattr(load_config("quickstart", [f'{key}="none"']), section), name) is None


def test_a_space_at_the_end_of_a_text_is_kept():
    assert load_config("quickstart", ["embedder.query_prompt=query: "]).embedder.query_prompt == "query: "
    assert load_config("quickstart", ['embedder.query_prompt=" q"']).embedder.query_prompt == " q"


def test_every_recipe_says_what_it_is_on_its_first_line():
    assert {"quickstart", "gemma-2b", "llama-3-8b"} <= list_recipes().keys()
    assert all(len(summary) > 20 for summary in list_recipes().values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Appendix C, LangPTune: K, J, T (batches x epochs), learning rates, gamma.
        ("gemma-2b", (5, 800, 200 * 4, 1e-7, 1e-7, 0.2)),
        ("llama-3-8b", (5, 2500, 500 * 4, 3e-7, 3e-7, 0.0)),
    ],
)
def test_the_paper_recipes_hold_appendix_c(name, expected):
    c = load_config(name)
    found = (
        c.iterations,
        c.contrastive.steps,
        c.rlso.steps,
        c.rlso.learning_rate,
        c.contrastive.learning_rate,
        c.rlso.kl_penalty,
    )
    assert found == expected
    assert (c.contrastive.batch_size, c.rlso.batch_size, c.rlso.epochs, c.rlso.eta) == (256, 64, 4, 1.0)
    assert (c.contrastive.weight_decay, c.rlso.weight_decay, c.rlso.overlong_reward) == (1e-6, 1e-6, 0.0)
    assert (c.embedder.model, c.embedder.dim) == ("mixedbread-ai/mxbai-embed-large-v1", 512)
    assert c.profile.max_tokens == 512


def test_the_paper_recipes_train_the_weights_the_paper_trains():
    gemma, llama = load_config("gemma-2b").policy, load_config("llama-3-8b").policy
    assert (gemma.train, gemma.lora_rank, gemma.lora_alpha) == ("lora", 1024, 2048)
    assert (llama.train, llama.last_layers) == ("last-layers", 4)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("rlso.learning_rate=1e-6", lambda c: c.rlso.learning_rate == 1e-6),
        ("rlso.eta=2", lambda c: c.rlso.eta == 2.0),
        ("data.source=/some/folder", lambda c: c.data.source == "/some/folder"),
        ("data.source=a=b", lambda c: c.data.source == "a=b"),
        ('data.source="123"', lambda c: c.data.source == "123"),
        (" policy.train = lora", lambda c: c.policy.train == "lora"),
        ("logging.tensorboard=false", lambda c: c.logging.tensorboard is False),
        ("evaluation.max_sessions=none", lambda c: c.evaluation.max_sessions is None),
        ("rlso={eta = 0.5}", lambda c: c.rlso.eta == 0.5),
        ("policy.template_arguments.enable_thinking=true", lambda c: c.policy.template_arguments["enable_thinking"]),
        ("policy.date=2026-11-29", lambda c: c.policy.date == "2026-11-29"),
        ('policy.date="2026-11-29"', lambda c: c.policy.date == "2026-11-29"),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_word(override, read):
    assert read(load_config("quickstart", ["evaluation.max_sessions=7", override]))


def test_later_overrides_win():
    assert load_config("quickstart", ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rlso.learning_rat=1", "'rlso.learning_rat'.* 'rlso.learning_rate'"),
        ("rlso.lr=1e-6", "'rlso.lr'.* 'rlso.learning_rate'"),
        ("rlso.temperature=1", "'rlso.temperature'.* 'profile.temperature'"),
        ("rlsoo.eta=1", "'rlsoo.eta'.* 'rlso.eta'"),
        ("zzz=1", "'zzz'.*config show"),
        ("rlso=3", "'rlso' is a section"),
        ("rlso.eta.x=1", r"rlso\.eta.*number"),
        ("seed", "key=value"),
        ("=3", "key=value"),
        ("seed=x", "seed = 'x'.*integer"),
        ("seed=-1", "seed = -1"),
        ("seed=true", "seed = True"),
        ("seed=1.5", r"seed = 1\.5"),
        ("seed=1\niterations=2", "seed"),
        ("rlso.eta=inf", r"rlso\.eta.*finite"),
        ("engine.zero_stage=4", r"engine\.zero_stage = 4"),
        ("policy.train=all", "policy.train = 'all'.*lora"),
        ("data.num_targets=0", "data.num_targets = 0"),
        ("contrastive.history_steps=-1", "contrastive.history_steps = -1"),
        ("rlso.steps=0", 'method = "LangPTune-CL"'),
        ("rlso.num_profiles=1", "rlso.num_profiles = 1"),
        ("rlso.objective=ppo", "rlso.objective = 'ppo'.*grpo"),
        ("rlso.clip_epsilon=0", "rlso.clip_epsilon = 0"),
        ("rlso.clip_epsilon=1", "rlso.clip_epsilon = 1"),
        ("rlso.reward=recall", "rlso.reward = 'recall'"),
        ("iterations=none", "iterations"),
        ("policy.date=tomorrow", 'policy.date = .*write a day as YYYY-MM-DD, such as "2024-07-26"'),
        ("policy.template_arguments=yes", "a table of names and values"),
        ("policy.template_arguments.enable_thinking=False", "'False' is a text, which counts as true; write false"),
        ("policy.template_arguments.messages=1", "'messages' is what every chat template is given"),
        ("policy.template_arguments.x=[1]", "an argument is true, false, a number or a text"),
        ("policy.template_arguments.x=99999999999999999999", "'policy.template_arguments' has a whole number of more"),
        ("seed=99999999999999999999", "'seed' has a whole number of more than 64 bits"),
        (f"rlso.steps=0x{'f' * 5000}", "'rlso.steps' has a whole number of more than 64 bits"),
    ],
)
def test_a_wrong_override_is_named_with_the_way_out(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart", [override])


@pytest.mark.parametrize(("steps", "nearest"), [(7, 4), (3, 4), (1001, 1000)])
def test_rlso_steps_are_a_multiple_of_the_epochs(steps, nearest):
    with pytest.raises(ConfigError, match=f"set rlso.steps = {nearest}$"):
        load_config("quickstart", ["rlso.epochs=4", f"rlso.steps={steps}"])


def test_one_model_can_be_trained_alone():
    policy_alone = load_config("quickstart", ["method=LangPTune-RLSO", "contrastive.steps=0"])
    assert policy_alone.trains_policy
    assert not policy_alone.trains_embedder
    embedder_alone = load_config("quickstart", ["method=LangPTune-CL", "rlso.steps=0"])
    assert embedder_alone.trains_embedder
    assert not embedder_alone.trains_policy


def test_an_embedder_without_steps_is_refused():
    with pytest.raises(ConfigError, match='method = "LangPTune-RLSO".*contrastive.history_steps'):
        load_config("quickstart", ["contrastive.steps=0", "contrastive.history_steps=0"])


def test_the_embedder_can_train_on_histories_alone():
    alone = load_config("quickstart", ["contrastive.steps=0", "contrastive.history_steps=9"])
    assert alone.trains_embedder
    assert not alone.trains_on_profiles
    assert load_config("quickstart").trains_on_profiles
    assert alone.trains_on_histories
    assert not load_config("quickstart", ["method=LangPTune-RLSO", "contrastive.history_steps=9"]).trains_on_histories


def test_wrong_recipes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="'quickstrat'.*quickstart"):
        load_config("quickstrat")
    with pytest.raises(ConfigError, match=r"no recipe file .*missing\.toml"):
        load_config(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = \n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML.*line 1"):
        load_config(broken)
    broken.write_bytes(b"seed = \xff\n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML"):
        load_config(broken)
    for text in (f"seed = {'9' * 5000}\n", f"seed = {'[' * 100_000}\n"):
        broken.write_text(text)
        with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML"):
            load_config(broken)
    broken.write_text("[rsol]\nsteps = 4\n")
    with pytest.raises(ConfigError, match="'rsol.steps'.*'rlso.steps'"):
        load_config(broken)


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_survives_being_written(text):
    config = load_config("quickstart")
    config = config.model_copy(update={"profile": config.profile.model_copy(update={"instruction": text})})
    assert RunConfig.model_validate(tomllib.loads(to_toml(config))) == config


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_any_number_survives_being_written(value):
    config = load_config("quickstart", [f"rlso.learning_rate={value!r}"])
    assert tomllib.loads(to_toml(config))["rlso"]["learning_rate"] == value


def test_reading_a_recipe_loads_no_heavy_library():
    code = (
        "import sys; from langptune_rs.config import load_config; load_config('quickstart'); "
        "print([m for m in ('torch', 'transformers', 'polars', 'deepspeed', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("override", "meaning"),
    [
        ("rlso.num_profiles=1", "The loss is the mean over all their pairs"),
        ("profile.temperature=0", "Evaluation decodes greedily, beside its samples at this temperature"),
        ("contrastive.history_steps=-1", "read the titles of a history instead of a profile"),
        ("data.num_targets=0", "averages over this many targets"),
        ("evaluation.samples=two", "Sampled profiles for each test session"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_what_the_key_means(override, meaning):
    key, _, value = override.partition("=")
    with pytest.raises(ConfigError) as error:
        load_config("quickstart", [override])
    message = str(error.value)
    assert message.startswith(f"{key} = ")
    assert value in message
    assert meaning in message.partition(" It means: ")[2]
