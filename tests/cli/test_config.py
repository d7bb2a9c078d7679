"""`langptune config`."""

import json
import tomllib

from langptune_rs.config import list_recipes, load_config


def test_list_names_every_recipe(langptune):
    lines = langptune("config", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(list_recipes())
    assert json.loads(langptune("config", "list", "--json").stdout) == list_recipes()


def test_show_resolves_recipe_and_overrides(langptune):
    shown = tomllib.loads(langptune("config", "show", "gemma-2b", "--set", "rlso.eta=0.5", "--set", "seed=3").stdout)
    assert (shown["seed"], shown["rlso"]["eta"], shown["policy"]["lora_rank"]) == (3, 0.5, 1024)


def test_show_as_json_has_unset_keys_too(langptune):
    override = "evaluation.max_sessions=none"
    shown = json.loads(langptune("config", "show", "--json", "--set", override).stdout)
    assert shown == load_config("quickstart", [override]).model_dump()
    assert shown["evaluation"]["max_sessions"] is None


def test_what_show_prints_is_a_recipe(langptune, tmp_path):
    (tmp_path / "own.toml").write_text(langptune("config", "show", "llama-3-8b").stdout)
    assert load_config(tmp_path / "own.toml") == load_config("llama-3-8b")


def test_a_wrong_recipe_or_key_is_named(error_of):
    assert "'quickstrat'" in error_of("config", "show", "quickstrat")
    assert "'rlso.learning_rate'" in error_of("config", "show", "--set", "rlso.lr=1")
