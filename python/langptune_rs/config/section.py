"""The base of every configuration section."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

UNSET = "none"
"""What a recipe writes for a key that is unset, since TOML has no word for it."""


class Section(BaseModel):
    """A frozen, validated group of recipe keys. Unknown keys, values of another type and NaN are refused.

    The text "none" unsets a key that may be unset, in a recipe, in an override and in Python alike.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        fields = cls.model_fields
        return {
            name: None if value == UNSET and name in fields and may_be_unset(fields[name]) else value
            for name, value in values.items()
        }


def may_be_unset(field: FieldInfo) -> bool:
    """Whether a key may have no value."""
    return type(None) in get_args(field.annotation)
