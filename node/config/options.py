"""Declaration of settings: each setting is one field, with its type, default, reader and names in one place.

    cache_ttl_ms: int = setting(300_000, values.milliseconds_between(1, 86_400_000), "cache_ttl", "cache.ttl")

From the fields of a class `options` makes the table of names that files, the environment, the command line and changes
at run time are read with.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from node.config import values

T = TypeVar("T")
Read = Callable[[object], T]
"""A reader (`node/config/values.py`): takes what a source gave; returns the value, or raises `ValueError`."""


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: a name under which a field is set, and the reader of its value.

    `names[0]` is the name in a file, and in capitals after `BZZZ_` in the environment; the other names are accepted in
    a file too (a dot is a level). `key` is the name on the command line and in a change at run time.
    """

    key: str
    read: Callable[[object], Any]
    names: tuple[str, ...]
    field: str
    is_older: bool = False
    """An older name: a node that is given it prints a note, and the current name wins within one source."""

    @property
    def variable(self) -> str:
        return f"BZZZ_{self.names[0].upper()}"

    def checked(self, name: str, value: object) -> object:
        """The value for `read`. Raises `ValueError` for a duration without a unit under a name that does not say it."""
        if self.field.endswith("_ms") and not name.endswith("_ms"):
            return values.with_unit(value)
        return value


@dataclass(frozen=True, slots=True)
class Alternative:
    """A second way to set a field: another name, with a reader of its own."""

    name: str
    read: Callable[[object], Any]
    is_older: bool = False


def setting(default: T, read: Read[T], *names: str, alternatives: tuple[Alternative, ...] = ()) -> T:
    """A dataclass field that is a setting. Without `names` the setting is called like its field."""
    return field(default=default, metadata={"read": read, "names": names, "alternatives": alternatives})


def options(settings: type[Any]) -> tuple[Option, ...]:
    """The table of a class: for each field made by `setting` its row, then the rows of its alternatives."""
    return tuple(
        option
        for declared in fields(settings)
        if (metadata := declared.metadata)
        for option in (
            Option(declared.name, metadata["read"], metadata["names"] or (declared.name,), declared.name),
            *(Option(one.name, one.read, (one.name,), declared.name, one.is_older) for one in metadata["alternatives"]),
        )
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or '' when no known name is near."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
