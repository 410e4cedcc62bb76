"""Reads the values of a scenario file's tables, by the types that the dataclasses give to their fields.

What a file may not have is refused in one line: the file, the key, the reason, and the nearest name where one is near.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from netsim.value_types import NodeGroups, NodeNames, OneOf, Range, SizeRange

Table = Mapping[str, Any]


class ScenarioRefused(Exception):
    """A scenario that cannot be played: the file, the key and the reason, in one line."""

    def __init__(self, file: str, key: str, reason: str) -> None:
        super().__init__(f"{file}: {key}: {reason}" if key else f"{file}: {reason}")
        self.file = file
        self.key = key
        self.reason = reason


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The end of a message that refuses a name; '' when no known name is near."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def keys_of(kind: type[Any], names: Iterable[str] | None = None) -> list[str]:
    """The keys of a table that has the fields of a dataclass, or those named.

    Of a field that is a dataclass itself, the keys are its fields, in the same table.
    """
    hints = get_type_hints(kind)
    wanted = [field.name for field in fields(kind) if names is None or field.name in names]
    return [key for name in wanted for key in (keys_of(hints[name]) if is_dataclass(hints[name]) else [name])]


class TableReader:
    """Reads one file. `nodes` are the names of the scenario's nodes, once they are known.

    Every method raises `ScenarioRefused`. A key is written with the tables that it is in: `workload.keys`.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self.nodes: tuple[str, ...] = ()

    def refusal(self, key: str, reason: str) -> ScenarioRefused:
        return ScenarioRefused(self._file, key, reason)

    def refuse_unknown(self, table: Table, known: Iterable[str], at: str) -> None:
        names = tuple(known)
        for key in table:
            if key not in names:
                raise self.refusal(f"{at}.{key}" if at else key, f"there is no such key{nearest_name(key, names)}")

    def subtable(self, table: Table, key: str) -> Table:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.refusal(key, f"a table is expected: [{key}]")
        return value

    def fields(self, kind: type[Any], table: Table, at: str, names: Iterable[str] | None = None) -> dict[str, Any]:
        """The arguments of a dataclass: those of its fields, or of those named, that are in the table or required."""
        hints = get_type_hints(kind, include_extras=True)
        values: dict[str, Any] = {}
        for field in fields(kind):
            hint = hints[field.name]
            if names is not None and field.name not in names:
                continue
            is_required = field.default is MISSING and field.default_factory is MISSING
            if is_dataclass(hint):
                assert isinstance(hint, type)
                values[field.name] = hint(**self.fields(hint, table, at))
            elif field.name in table or is_required:
                values[field.name] = self.value(hint, table, f"{at}.{field.name}" if at else field.name)
        return values

    def value(self, hint: Any, table: Table, key: str) -> Any:
        """One value of a type that is annotated as in `netsim/value_types.py`."""
        value = table.get(key.rpartition(".")[2])
        if value is None:
            raise self.refusal(key, "it is missing")
        if get_origin(hint) in (Union, UnionType):
            hint = next(one for one in get_args(hint) if one is not type(None))
        base, marker = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
        match marker:
            case Range() if base is int:
                return self._whole(value, key, marker)
            case Range():
                return self._number(value, key, marker)
            case OneOf(words):
                return self._word(value, key, words)
            case NodeNames():
                return self._nodes(value, key)
            case NodeGroups():
                return self._groups(value, key)
            case SizeRange(bytes_max):
                return self._sizes(value, key, bytes_max)
            case _:
                return self._flag(value, key) if base is bool else self._text(value, key)

    # -- by type ----------------------------------------------------------------------------------------------

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.refusal(key, "a text is expected")
        return value.strip()

    def _word(self, value: Any, key: str, words: tuple[str, ...]) -> str:
        if value not in words:
            near = nearest_name(str(value), words)
            raise self.refusal(key, f"{value!r} is not one of {', '.join(words)}{near}")
        return str(value)

    def _flag(self, value: Any, key: str) -> bool:
        if not isinstance(value, bool):
            raise self.refusal(key, f"{value!r} is neither true nor false")
        return value

    def _number(self, value: Any, key: str, allowed: Range) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.refusal(key, f"{value!r} is not a number")
        if not allowed.low <= value <= allowed.high:
            raise self.refusal(key, f"{value:g} is out of range: {allowed.low:g} to {allowed.high:g}")
        return float(value)

    def _whole(self, value: Any, key: str, allowed: Range) -> int:
        if type(value) is not int:
            raise self.refusal(key, f"{value!r} is not a whole number")
        return int(self._number(value, key, allowed))

    def _sizes(self, value: Any, key: str, bytes_max: int) -> tuple[int, int]:
        if not (isinstance(value, list) and len(value) == 2 and all(type(size) is int for size in value)):
            raise self.refusal(key, "two whole numbers are expected: [smallest, largest]")
        smallest, largest = value
        if not 0 <= smallest <= largest <= bytes_max:
            raise self.refusal(key, f"{value} does not ascend within 0 to {bytes_max:,}")
        return smallest, largest

    def _nodes(self, value: Any, key: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise self.refusal(key, "a list of nodes is expected")
        found: dict[str, None] = {}
        for item in value:
            found.update(dict.fromkeys(self._row(str(item), key)))
        return tuple(found)

    def _row(self, item: str, key: str) -> tuple[str, ...]:
        """The nodes that one item of a list stands for: n1, n4..n30, *."""
        if item == "*":
            return self.nodes
        first, dots, last = item.partition("..")
        for node in (first, last) if dots else (first,):
            if node not in self.nodes:
                raise self.refusal(key, f"there is no node {node!r}; there are {self.nodes[0]} to {self.nodes[-1]}")
        begin = self.nodes.index(first)
        end = self.nodes.index(last) if dots else begin
        if begin > end:
            raise self.refusal(key, f"{item!r} runs backwards: write {last}..{first}")
        return self.nodes[begin : end + 1]

    def _groups(self, value: Any, key: str) -> tuple[tuple[str, ...], ...]:
        if not isinstance(value, list) or not all(isinstance(group, list) and group for group in value):
            raise self.refusal(key, "a list of lists of nodes is expected")
        groups = tuple(self._nodes(group, key) for group in value)
        listed = [node for group in groups for node in group]
        if twice := sorted({node for node in listed if listed.count(node) > 1}):
            raise self.refusal(key, f"{twice[0]} is in two groups")
        return groups
