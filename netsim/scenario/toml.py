"""Scenarios from TOML files. An unknown name is refused with the nearest known one, a contradiction with its reason.

A file's name is the scenario's. The keys are the fields of the dataclasses in `model.py`, `netsim/workload.py`,
`netsim/world.py` and `netsim/faults/kinds.py`, and their types say what each may be.
"""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from netsim.checks.registry import CHECKS
from netsim.faults.base import Fault
from netsim.faults.kinds import KINDS
from netsim.scenario.model import Chaos, Scenario, ScenarioLimits
from netsim.scenario.validate import contradictions
from netsim.scenario.values import ScenarioRefused, Table, TableReader, keys_of, nearest_name
from netsim.value_types import Backend, OneOf, Range
from netsim.workload import Workload
from netsim.world import LinkQuality

FOLDER = Path(__file__).parents[1] / "scenarios"
NODES_MAX = 200
CHAOS_KINDS = tuple(name for name, kind in KINDS.items() if kind.can_be_drawn)
SETTINGS: dict[str, Any] = {
    "deadline_ms": Annotated[int, Range(1, 60_000)],
    "real_deadline_ms": Annotated[int, Range(1, 60_000)],
    "connections_kept": Annotated[int, Range(4, 4_096)],
    "write_quorum": Annotated[int, Range(1, 1_000)],
    "read_quorum": Annotated[int, Range(1, 1_000)],
    "read_freshness_ms": Annotated[int, Range(0, 3_600_000)],
    "threshold_errors": Annotated[int, Range(1, 1_000)],
    "backoff_ms": Annotated[int, Range(1, 600_000)],
    "replica_grace_ms": Annotated[int, Range(1_000, 604_800_000)],
    "forget_after_hours": Annotated[float, Range(0.001, 1e6)],
    "fallback_on_error": bool,
}
"""Those of a node's settings that a scenario may set, each with its type."""


def names() -> list[str]:
    """The scenarios that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name_or_file: str) -> Scenario:
    """A scenario by its name, or from a file (a text that has a slash in it, or ends in .toml)."""
    if "/" in name_or_file or name_or_file.endswith(".toml"):
        return read(Path(name_or_file))
    if name_or_file not in names():
        raise ScenarioRefused(name_or_file, "", f"there is no such scenario{nearest_name(name_or_file, names())}")
    return read(FOLDER / f"{name_or_file}.toml")


def read(path: Path) -> Scenario:
    """A scenario from a file. Raises `ScenarioRefused`."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ScenarioRefused(str(path), "", error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise ScenarioRefused(str(path), "", "it is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioRefused(str(path), "", f"it is not TOML: {error}") from None
    return _ScenarioReader(TableReader(str(path))).scenario(path.stem, table)


class _ScenarioReader:
    """Reads the tables of one file; every method raises `ScenarioRefused`."""

    def __init__(self, reader: TableReader) -> None:
        self._reader = reader

    def scenario(self, name: str, table: Table) -> Scenario:
        reader = self._reader
        known = [field.name for field in fields(Scenario) if field.name not in ("name", "faults")] + ["fault"]
        reader.refuse_unknown(table, known, "")
        plain = reader.fields(Scenario, table, "", ("about", "backend", "replication", "commit_ms"))
        count = reader.value(Annotated[int, Range(1, NODES_MAX)], table, "nodes")
        reader.nodes = tuple(f"n{number}" for number in range(1, count + 1))
        scenario = Scenario(
            name=name,
            nodes=reader.nodes,
            backends=self._backends(reader.subtable(table, "backends")),
            settings=self._settings(reader.subtable(table, "settings")),
            link=LinkQuality(**self._fields(LinkQuality, table, "link")),
            workload=Workload(**self._fields(Workload, table, "workload")),
            limits=ScenarioLimits(**self._fields(ScenarioLimits, table, "limits")),
            faults=tuple(self._fault(row, number) for number, row in enumerate(self._faults(table), start=1)),
            chaos=self._chaos(reader.subtable(table, "chaos")),
            expected_to_fail=self._expected(reader.subtable(table, "expected_to_fail")),
            **plain,
        )
        for key, reason in contradictions(scenario):
            raise reader.refusal(key, reason)
        return scenario

    def _fields(self, kind: type[Any], table: Table, key: str) -> dict[str, Any]:
        """The arguments of a dataclass from the table [key]."""
        found = self._reader.subtable(table, key)
        self._reader.refuse_unknown(found, keys_of(kind), key)
        return self._reader.fields(kind, found, key)

    def _backends(self, table: Table) -> dict[str, str]:
        self._reader.refuse_unknown(table, self._reader.nodes, "backends")
        return {node: self._reader.value(Backend, table, f"backends.{node}") for node in table}

    def _settings(self, table: Table) -> dict[str, object]:
        self._reader.refuse_unknown(table, SETTINGS, "settings")
        for name in table:
            self._reader.value(SETTINGS[name], table, f"settings.{name}")
        return dict(table)

    def _chaos(self, table: Table) -> Chaos | None:
        if not table:
            return None
        self._reader.refuse_unknown(table, keys_of(Chaos), "chaos")
        kinds = table.get("kinds", [])
        if not isinstance(kinds, list) or not kinds:
            raise self._reader.refusal("chaos.kinds", "a list of fault kinds is expected")
        for kind in kinds:
            if kind not in CHAOS_KINDS:
                near = nearest_name(str(kind), CHAOS_KINDS)
                raise self._reader.refusal("chaos.kinds", f"{kind!r} is no kind that can be drawn{near}")
        times = self._reader.fields(Chaos, table, "chaos", ("every_seconds", "longest_seconds"))
        return Chaos(kinds=tuple(KINDS[kind] for kind in kinds), **times)

    def _expected(self, table: Table) -> dict[str, str]:
        self._reader.refuse_unknown(table, CHECKS, "expected_to_fail")
        return {name: self._reader.value(str, table, f"expected_to_fail.{name}") for name in table}

    def _faults(self, table: Table) -> list[Table]:
        rows = table.get("fault", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._reader.refusal("fault", "faults are written as [[fault]], one table each")
        return rows

    def _fault(self, table: Table, number: int) -> Fault:
        at = f"fault {number}"
        kind = KINDS[self._reader.value(Annotated[str, OneOf(tuple(KINDS))], table, f"{at}.kind")]
        self._reader.refuse_unknown(table, ("kind", "at", *keys_of(kind, kind.keys)), f"{at} ({kind.kind})")
        for key in kind.required:
            if key not in table:
                raise self._reader.refusal(f"{at}.{key}", f"it is missing, and a {kind.kind} needs it")
        return kind(**self._reader.fields(kind, table, at, ("at", *kind.keys)))
