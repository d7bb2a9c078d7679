"""The errors a user can meet. Each says what was passed, why it cannot work and what to do next."""

from collections.abc import Iterable


class LangptuneError(ValueError):
    """Base of every error raised for something the caller can fix."""


class InputError(LangptuneError):
    """An array given to the core has the wrong dtype, shape, layout or values."""


class ConfigError(LangptuneError):
    """A recipe or an override is not valid."""


class DataError(LangptuneError):
    """A source file or a prepared data set is broken or lacks what is needed."""


class ModelError(LangptuneError):
    """A model cannot be found, loaded or used for the purpose asked."""


class ContextError(ModelError):
    """A text is longer than the model's context."""


class RunError(LangptuneError):
    """A run folder is missing, belongs to another configuration, or cannot be resumed."""


class TrainingError(LangptuneError):
    """Training cannot go on, such as a loss that is not a number."""


def sentence(text: str) -> str:
    """A text, such as what a library's error says, as one line that ends as a sentence does."""
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?", "…")) else line.rstrip(",:;") + "."


def nearest(wanted: str, known: Iterable[str], most: int = 1) -> str:
    """` Did you mean 'name'?` with at most so many known names that are near to `wanted`; nothing without any."""
    from difflib import get_close_matches  # only for an error: it costs more to import than all else here

    by_lower_case = {name.casefold(): name for name in known}
    near = get_close_matches(wanted.casefold(), by_lower_case, n=most, cutoff=0.6)
    if not near:
        return ""
    *others, last = (repr(by_lower_case[name]) for name in near)
    return f" Did you mean {', '.join(others)} or {last}?" if others else f" Did you mean {last}?"
