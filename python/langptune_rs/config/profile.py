"""How profiles are sampled. Imports no model library."""

from typing import Literal

from pydantic import Field, PositiveInt

from langptune_rs.config.section import Section


class ProfileConfig(Section):
    """How profiles are written."""

    max_tokens: PositiveInt = 512
    """A profile with no end-of-turn token within this many tokens is overlong."""
    temperature: float = Field(default=1.0, ge=0.01, le=1e3)
    """Temperature of the samples that train, and of the log-probabilities that RLSO regresses. Evaluation decodes
    greedily, beside its samples at this temperature."""
    instruction: str | None = None
    """What the policy is told before the history. Unset: the words of the data set's template (appendix B)."""
    closing: str = ""
    """Asked again after the history, for small models that need the reminder. Empty in the paper."""
    history_text: Literal["full", "brief"] = "full"
    """Show the policy each history item's whole text (appendix B), or one line: title (of a product its name alone),
    categories, rating, review."""
    token_budget: PositiveInt = 32768
    """Tokens of prompts and profiles decoded together, an upper bound on the key-value cache."""
