"""The beginning of a text, where the whole is too long to show."""


def shorten(text: str, length: int) -> str:
    """`text`, or its first words with an ellipsis where it has more than `length` characters."""
    if len(text) <= length:
        return text
    return (text[:length].rpartition(" ")[0] or text[:length]) + "…"
