"""The text encoder that embeds profiles and items."""

from pydantic import PositiveInt

from langptune_rs.config.section import Section


class EmbedderConfig(Section):
    """The text encoder that embeds profiles and items."""

    model: str = "all-minilm-l6-v2"
    """An embedded model's name, a local SentenceTransformer folder, or a hub id."""
    dim: PositiveInt | None = None
    """Keep the first `dim` coordinates (Matryoshka truncation), normalised again. Unset: all."""
    max_tokens: PositiveInt = 256
    """Longer texts are cut to this many tokens, or to the encoder's own limit if that is lower."""
    query_prompt: str | None = None
    """Put before a profile. Unset: what the model itself puts before a query; "" for nothing, as in the paper."""
    item_prompt: str | None = None
    """Put before an item's text. Unset: what the model itself puts before a document; "" for nothing."""
