"""What an embedder reads before a profile and before an item: the recipe's prompts, or the model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

QUERY = ("query",)
ITEM = ("document", "passage", "corpus")
"""What SentenceTransformer calls the prompts of either side, in the order in which it looks for them."""
INSTRUCTORS = ("hkunlp/instructor-base", "hkunlp/instructor-large", "hkunlp/instructor-xl")
"""Models that leave the prompt out of the mean. SentenceTransformer knows them by their hub ids, not by their files."""
_FOR_ONE_SIDE = ("query_length", "document_length", "query_expansion")
"""Settings of an encoder that read queries and documents in ways that only SentenceTransformer itself knows."""


class Prompted(NamedTuple):
    """A text, and the prompt that stands before it."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Tokens:
    """A text as an encoder reads it."""

    ids: list[int]
    left_out: int = 0
    """How many tokens at the beginning are the prompt's, where the embedding is to leave them out; 0 elsewhere."""

    def __len__(self) -> int:
        return len(self.ids)


def prompts_of(model: SentenceTransformer, config: EmbedderConfig) -> tuple[str, str]:
    """The prompts before a profile and before an item.

    They are the recipe's, and where it sets none those that `encode_query` and `encode_document` use. The first of
    `ITEM` that is not empty counts: a model that is saved with "passage" alone gets an empty "document" beside it.

    Raises `ModelError` where it is not clear what a model reads before a text.
    """
    _refuse_unknown_ways(model, config)
    return (
        config.query_prompt if config.query_prompt is not None else _own(model, config, "query_prompt", QUERY),
        config.item_prompt if config.item_prompt is not None else _own(model, config, "item_prompt", ITEM),
    )


def keep_prompts(model: SentenceTransformer, query: str, item: str) -> None:
    """Make `encode_query` and `encode_document` of a model, and of what it is saved as, use these prompts.

    A default prompt of another name would come before every text that `encode` is given, and goes.
    """
    model.prompts = {**model.prompts, QUERY[0]: query, ITEM[0]: item}
    if model.default_prompt_name not in (*QUERY, *ITEM):
        model.default_prompt_name = None


def leaves_prompts_out(model: SentenceTransformer, config: EmbedderConfig) -> bool:
    """Whether the embedding is made of the text's tokens alone."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    if config.model in INSTRUCTORS:
        model.set_pooling_include_prompt(False)
    return any(isinstance(module, Pooling) and not module.include_prompt for module in model)


def _own(model: SentenceTransformer, config: EmbedderConfig, key: str, names: tuple[str, ...]) -> str:
    """The model's own prompt for the side that `key` sets."""
    named = next(filter(None, (model.prompts.get(name) for name in names)), "")
    default = model.default_prompt_name
    text = model.prompts.get(default) if default and default not in (*QUERY, *ITEM) else None
    if named or not text:
        return named
    raise ModelError(
        f"The embedder {config.model!r} has a prompt {default!r} for any text, {text!r}, and none for a {names[0]}. "
        f"SentenceTransformer puts it before what `encode` reads, and nothing before what `encode_{names[0]}` reads, "
        f'so the model does not say what it needs. Set embedder.{key} to that text, or to "".'
    )


def _refuse_unknown_ways(model: SentenceTransformer, config: EmbedderConfig) -> None:
    found = [name for name in _FOR_ONE_SIDE if getattr(model[0], name, None) is not None]
    if found:
        raise ModelError(
            f"The embedder {config.model!r} reads queries and documents in different ways ({', '.join(found)} in "
            "sentence_bert_config.json), of which only the prompts can be followed. Take the setting out of that file, "
            "or choose another embedder."
        )
