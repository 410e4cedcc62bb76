"""A history as JSON lines: one object a line, and its `type` says what it is.

`Setting` comes first (the parameters of the run), then each `Operation`, `Event`, `Opened` (a recovery), `Sample` and
`State`, and `End` last. Versions are arrays in the order of `VersionRef`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from netsim.history import (
    AnswerRecord,
    FinalState,
    History,
    NemesisEvent,
    Operation,
    Outcome,
    ReceiptRecord,
    Recovery,
    ResourceSample,
    RunParameters,
    VersionRef,
)

_NAMES_IN_FILE = {
    "Setting": {"byzantine": "liars"},
    "Operation": {"answer": "sight", "node_seconds": "took"},
    "State": {"hints": "owed", "quarantined": "refused"},
}
"""Fields whose name in the file is not their name in the code, by type."""


def history_lines(history: History) -> Iterator[str]:
    """The whole history, a JSON object a line; byte-identical for equal histories."""
    yield _line("Setting", history.parameters)
    lists: dict[str, list[Any]] = {
        "Operation": history.operations,
        "Event": history.events,
        "Opened": history.recoveries,
        "Sample": history.samples,
        "State": history.states,
    }
    for kind, items in lists.items():
        for item in items:
            yield _line(kind, item)
    end = {"healed_at": history.healed_at, "settled_at": history.settled_at, "unsettled": history.unsettled}
    yield _json("End", end)


def history_from_lines(lines: Iterable[str]) -> History:
    """The inverse of `history_lines`. Raises `ValueError` for lines that are no history."""
    objects = [json.loads(line) for line in lines if line.strip()]
    if not objects or objects[0].get("type") != "Setting":
        raise ValueError("a history begins with its Setting")
    history = History(parameters=_parameters(_fields("Setting", objects[0])))
    readers: dict[str, Callable[[dict[str, Any]], None]] = {
        "Operation": lambda row: history.operations.append(_operation(row)),
        "Event": lambda row: history.events.append(NemesisEvent(**{**row, "nodes": tuple(row["nodes"])})),
        "Opened": lambda row: history.recoveries.append(Recovery(**{**row, "digests": tuple(row["digests"])})),
        "Sample": lambda row: history.samples.append(ResourceSample(**row)),
        "State": lambda row: history.states.append(_state(row)),
    }
    for found in objects[1:]:
        kind = str(found.get("type"))
        fields = _fields(kind, found)
        if kind == "End":
            history.healed_at, history.settled_at = fields["healed_at"], fields["settled_at"]
            history.unsettled = fields["unsettled"]
        elif kind in readers:
            readers[kind](fields)
        else:
            raise ValueError(f"a history has no {found.get('type')!r}")
    return history


def _line(kind: str, item: Any) -> str:
    names = _NAMES_IN_FILE.get(kind, {})
    return _json(kind, {names.get(name, name): value for name, value in asdict(item).items()})


def _json(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **fields}, separators=(",", ":"), default=tuple)


def _fields(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """The fields of an object by their names in the code."""
    names = {in_file: name for name, in_file in _NAMES_IN_FILE.get(kind, {}).items()}
    return {names.get(key, key): value for key, value in found.items() if key != "type"}


def _parameters(row: dict[str, Any]) -> RunParameters:
    nodes = {name: tuple(row[name]) for name in ("nodes", "byzantine", "late")}
    return RunParameters(**{**row, **nodes, "holders": _tuples(row["holders"])})


def _operation(row: dict[str, Any]) -> Operation:
    receipt, answer = row.get("receipt"), row.get("answer")
    if receipt is not None:
        held_by = receipt["held_by"]
        held = None if held_by is None else tuple(held_by)
        receipt = ReceiptRecord(**{**receipt, "parents": tuple(receipt["parents"]), "held_by": held})
    if answer is not None:
        answer = AnswerRecord(**{**answer, "heads": tuple(map(_version, answer["heads"]))})
    return Operation(**{**row, "outcome": Outcome(row["outcome"]), "receipt": receipt, "answer": answer})


def _state(row: dict[str, Any]) -> FinalState:
    versions = {key: tuple(map(_version, found)) for key, found in row["versions"].items()}
    return FinalState(**{**row, "heads": _tuples(row["heads"]), "versions": versions})


def _version(row: list[Any]) -> VersionRef:
    return VersionRef(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), row[6])


def _tuples(table: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(value) for key, value in table.items()}
