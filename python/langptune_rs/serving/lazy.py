"""What is made when it is first needed, and once, whichever thread asks first."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """A value that the first call makes. Others that ask meanwhile wait; what failed is made again at the next call."""

    def __init__(self, make: Callable[[], T]):
        self._make = make
        self._made: list[T] = []
        self._making = Lock()

    def __call__(self) -> T:
        """The value. Raises what making it raises."""
        if not self._made:
            with self._making:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]
