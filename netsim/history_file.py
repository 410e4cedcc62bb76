"""A history as JSON lines: one object a line, and its `type` says what it is.

`Setting` comes first (the parameters of the run), then each `Operation`, `Event`, `Opened` (a recovery), `Sample` and
`State`, and `End` last. Versions are arrays in the order of `ShownVersion`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from netsim.history import History

NAMES_IN_FILE = {
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


def _line(kind: str, item: Any) -> str:
    names = NAMES_IN_FILE.get(kind, {})
    return _json(kind, {names.get(name, name): value for name, value in asdict(item).items()})


def _json(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **fields}, separators=(",", ":"), default=tuple)
