"""Who is told at once that a key's versions changed.

The log has every change, for whoever may come after it. What answers from a memory of its own may not: between a
commit and the log being read, it would show what is no longer so. It is told in the very step in which the change
becomes visible, before anybody reads it and before the call that made it returns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Told = Callable[[bytes], None]


class ChangeListeners:
    """Costs a store that nobody follows one look."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: tuple[Told, ...] = ()

    def tell(self, key: bytes) -> None:
        """Versions of this key changed."""
        for told in self._all:
            told(key)

    @contextmanager
    def joined(self, told: Told) -> Iterator[None]:
        """While this lasts, `told` is called with each key that changes: quick, not waiting, not raising."""
        self._all = (*self._all, told)
        try:
            yield
        finally:
            self._all = tuple(one for one in self._all if one is not told)
