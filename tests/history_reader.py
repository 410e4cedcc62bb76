"""Reads a history file, for tests of runs that write one."""

import json
from collections.abc import Callable, Iterable
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
    ShownVersion,
)
from netsim.history_file import NAMES_IN_FILE


def read_history(lines: Iterable[str]) -> History:
    """The inverse of `history_lines` (netsim/history_file.py). Raises `ValueError` for lines that are no history."""
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


def _fields(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """The fields of an object by their names in the code."""
    names = {in_file: name for name, in_file in NAMES_IN_FILE.get(kind, {}).items()}
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


def _version(row: list[Any]) -> ShownVersion:
    return ShownVersion(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), row[6])


def _tuples(table: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(value) for key, value in table.items()}
