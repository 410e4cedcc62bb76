"""Callbacks for the keys whose versions change, called in the step in which the change becomes visible.

The log has every change, for readers that may be late. A cache may not be late: between a commit and its reading of the
log it would answer with old versions. So its callback runs before any other task can read the change, and before the
call that made the change returns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Callback = Callable[[bytes], None]


class ChangeListeners:
    """Costs a store one look at an empty tuple while nothing is subscribed."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: tuple[Callback, ...] = ()

    def notify(self, key: bytes) -> None:
        """Versions of this key changed."""
        for callback in self._callbacks:
            callback(key)

    @contextmanager
    def subscribed(self, callback: Callback) -> Iterator[None]:
        """While this lasts, `callback` gets each key that changes. It must be quick, not wait and not raise."""
        self._callbacks = (*self._callbacks, callback)
        try:
            yield
        finally:
            self._callbacks = tuple(each for each in self._callbacks if each is not callback)
