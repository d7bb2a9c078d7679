"""What a recipe may say: one model for every section, and the recipes that come with the package.

It imports nothing heavier than pydantic, so that every command reads a recipe fast.
"""

from langptune_rs.config.loading import DEFAULT_RECIPE, list_recipes, load_config
from langptune_rs.config.run import RunConfig
from langptune_rs.config.toml import to_toml

__all__ = ["DEFAULT_RECIPE", "RunConfig", "list_recipes", "load_config", "to_toml"]
