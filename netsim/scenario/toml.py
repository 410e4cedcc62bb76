"""Scenarios from TOML, strictly: what is not known is refused with the nearest name that is, and so is what cannot be.

A file's name is the scenario's. Every refusal is one line: the file, the key, the reason.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any

from netsim.checks.registry import CHECKS
from netsim.scenario.model import BACKENDS, Chaos, Fault, FaultKind, LinkQuality, Scenario, ScenarioLimits, Workload
from netsim.scenario.validate import contradictions

FOLDER = Path(__file__).parents[1] / "scenarios"
NODES_MAX = 200
SECONDS_MAX = 7 * 24 * 3600.0

_LINK = tuple(one.name for one in fields(LinkQuality))
FAULT_KEYS: dict[FaultKind, tuple[str, ...]] = {
    FaultKind.CRASH: ("until", "nodes", "loses_disk", "is_forever", "every_seconds"),
    FaultKind.RESTART: ("until", "nodes", "backend", "every_seconds"),
    FaultKind.PAUSE: ("until", "nodes", "every_seconds"),
    FaultKind.PARTITION: ("until", "groups", "every_seconds"),
    FaultKind.CUT: ("until", "sources", "targets", "both_ways"),
    FaultKind.LINK: ("until", "sources", "targets", "both_ways", *_LINK),
    FaultKind.DISK: ("until", "nodes", "commit_ms", "is_full", "is_stalled"),
    FaultKind.CLOCK: ("until", "nodes", "off_seconds"),
    FaultKind.JUMP: ("nodes", "off_seconds"),
    FaultKind.JOIN: ("nodes", "every_seconds"),
    FaultKind.FLIP: ("nodes", "backend", "every_seconds"),
    FaultKind.LIE: ("until", "nodes"),
}
"""What each kind takes beside `kind` and `at`."""
_NEEDED: dict[FaultKind, tuple[str, ...]] = {
    FaultKind.PARTITION: ("groups",),
    FaultKind.CUT: ("sources", "targets"),
    FaultKind.LINK: (),
    FaultKind.CLOCK: ("nodes", "off_seconds"),
    FaultKind.JUMP: ("nodes", "off_seconds"),
    FaultKind.FLIP: ("nodes", "backend"),
}
CHAOS_KINDS = tuple(kind for kind in FaultKind if kind not in (FaultKind.JOIN, FaultKind.FLIP, FaultKind.LIE))
SETTINGS = {
    "deadline_ms": (1, 60_000), "real_deadline_ms": (1, 60_000), "write_quorum": (1, 1_000), "read_quorum": (1, 1_000),
    "read_freshness_ms": (0, 3_600_000), "threshold_errors": (1, 1_000), "backoff_ms": (1, 600_000),
    "forget_after_hours": (0.001, 1e6), "fallback_on_error": (),
}  # fmt: skip
"""Those of a node's settings that a scenario may set, each with its range; whole numbers where both ends are."""


class ScenarioRefused(Exception):
    """A scenario that cannot be played: the file, the key and the reason, in one line."""

    def __init__(self, file: str, key: str, reason: str) -> None:
        super().__init__(f"{file}: {key}: {reason}" if key else f"{file}: {reason}")
        self.file = file
        self.key = key
        self.reason = reason


def names() -> list[str]:
    """The scenarios that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name_or_file: str) -> Scenario:
    """A scenario by its name, or from a file (whatever has a slash in it, or ends in .toml)."""
    if "/" in name_or_file or name_or_file.endswith(".toml"):
        return read(Path(name_or_file))
    if name_or_file not in names():
        raise ScenarioRefused(name_or_file, "", f"there is no such scenario{_nearest(name_or_file, names())}")
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
    return _Reader(str(path)).scenario(path.stem, table)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


class _Reader:
    """Reads one file; every method raises `ScenarioRefused` with its name."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._nodes: tuple[str, ...] = ()

    def _refuse(self, key: str, reason: str) -> ScenarioRefused:
        return ScenarioRefused(self._file, key, reason)

    # -- the whole --------------------------------------------------------------------------------------------

    def scenario(self, name: str, table: Mapping[str, Any]) -> Scenario:
        known = [one.name for one in fields(Scenario) if one.name not in ("name", "faults")] + ["fault"]
        self._known(table, known, "")
        about = self._text(table, "about")
        count = self._whole(table, "nodes", 1, NODES_MAX)
        self._nodes = tuple(f"n{number}" for number in range(1, count + 1))
        limits = self._limits(self._table(table, "limits"))
        scenario = Scenario(
            name=name,
            about=about,
            nodes=self._nodes,
            backend=self._word(table, "backend", BACKENDS, "hybrid"),
            backends=self._backends(self._table(table, "backends")),
            replication=self._whole(table, "replication", 1, 1000, 20),
            settings=self._settings(self._table(table, "settings")),
            link=self._link(self._table(table, "link"), "link"),
            commit_ms=self._number(table, "commit_ms", 0.0, 10_000.0, 0.3),
            workload=self._workload(self._table(table, "workload"), limits),
            limits=limits,
            faults=tuple(self._fault(one, number, limits) for number, one in enumerate(self._faults(table), start=1)),
            chaos=self._chaos(self._table(table, "chaos")),
            expected_to_fail=self._expected(self._table(table, "expected_to_fail")),
        )
        for key, why in contradictions(scenario):
            raise self._refuse(key, why)
        return scenario

    def _faults(self, table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        faults = table.get("fault", [])
        if not isinstance(faults, list) or not all(isinstance(one, dict) for one in faults):
            raise self._refuse("fault", "faults are written as [[fault]], one table each")
        return faults

    # -- its parts --------------------------------------------------------------------------------------------

    def _limits(self, table: Mapping[str, Any]) -> ScenarioLimits:
        self._known(table, [one.name for one in fields(ScenarioLimits)], "limits")
        default = ScenarioLimits()
        return ScenarioLimits(
            faults_seconds=self._number(table, "limits.faults_seconds", 0.1, SECONDS_MAX, default.faults_seconds),
            settle_seconds=self._number(table, "limits.settle_seconds", 0.1, SECONDS_MAX, default.settle_seconds),
            tasks_per_node=self._whole(table, "limits.tasks_per_node", 1, 100_000, default.tasks_per_node),
            frames_per_link=self._whole(table, "limits.frames_per_link", 1, 100_000, default.frames_per_link),
        )

    def _backends(self, table: Mapping[str, Any]) -> dict[str, str]:
        self._known(table, self._nodes, "backends")
        return {node: self._word(table, f"backends.{node}", BACKENDS, "") for node in table}

    def _settings(self, table: Mapping[str, Any]) -> dict[str, object]:
        self._known(table, SETTINGS, "settings")
        for name in table:
            match SETTINGS[name]:
                case (int(low), int(high)):
                    self._whole(table, f"settings.{name}", low, high)
                case (low, high):
                    self._number(table, f"settings.{name}", low, high, None)
                case _:
                    self._flag(table, f"settings.{name}", False)
        return dict(table)

    def _link(self, table: Mapping[str, Any], at: str) -> LinkQuality:
        self._known(table, _LINK, at)
        return self._link_of(table, at)

    def _link_of(self, table: Mapping[str, Any], at: str) -> LinkQuality:
        default = LinkQuality()
        return LinkQuality(
            latency_ms=self._number(table, f"{at}.latency_ms", 0.0, 60_000.0, default.latency_ms),
            jitter_ms=self._number(table, f"{at}.jitter_ms", 0.0, 60_000.0, default.jitter_ms),
            loss=self._share(table, f"{at}.loss", default.loss),
            duplication=self._share(table, f"{at}.duplication", default.duplication),
            reordering=self._share(table, f"{at}.reordering", default.reordering),
        )

    def _workload(self, table: Mapping[str, Any], limits: ScenarioLimits) -> Workload:
        self._known(table, [one.name for one in fields(Workload)], "workload")
        default = Workload()
        shares = ("writes", "deletes", "seen", "blind", "local", "swarm")
        until = self._number(table, "workload.until", 0.0, SECONDS_MAX, None) if "until" in table else None
        if until is not None and until > limits.faults_seconds:
            raise self._refuse(
                "workload.until", f"{until:g} s is after limits.faults_seconds, {limits.faults_seconds:g}"
            )
        workload = Workload(
            clients=self._whole(table, "workload.clients", 1, 1000, default.clients),
            nodes=self._listed(table, "workload.nodes"),
            readers=self._whole(table, "workload.readers", 0, 1000, default.readers),
            calls_per_second=self._number(table, "workload.calls_per_second", 0.0, 10_000.0, default.calls_per_second),
            keys=self._whole(table, "workload.keys", 1, 100_000, default.keys),
            skew=self._number(table, "workload.skew", 0.0, 10.0, default.skew),
            size_bytes=self._sizes(table, default.size_bytes),
            until=until,
            **{name: self._share(table, f"workload.{name}", getattr(default, name)) for name in shares},
        )
        for one, other in (("seen", "blind"), ("local", "swarm")):
            if getattr(workload, one) + getattr(workload, other) > 1.0:
                raise self._refuse(f"workload.{one}", f"{one} and {other} are shares of the same calls: over 1 in all")
        return workload

    def _sizes(self, table: Mapping[str, Any], default: tuple[int, int]) -> tuple[int, int]:
        sizes = table.get("size_bytes", list(default))
        if not (isinstance(sizes, list) and len(sizes) == 2 and all(type(size) is int for size in sizes)):
            raise self._refuse("workload.size_bytes", "two whole numbers are expected: [smallest, largest]")
        if not 0 <= sizes[0] <= sizes[1] <= 1_000_000:
            raise self._refuse("workload.size_bytes", f"{sizes} does not ascend within 0 to 1,000,000")
        return sizes[0], sizes[1]

    def _chaos(self, table: Mapping[str, Any]) -> Chaos | None:
        if not table:
            return None
        self._known(table, [one.name for one in fields(Chaos)], "chaos")
        kinds = table.get("kinds", [])
        if not isinstance(kinds, list) or not kinds:
            raise self._refuse("chaos.kinds", "a list of kinds of faults is expected")
        for kind in kinds:
            if kind not in CHAOS_KINDS:
                near = _nearest(str(kind), CHAOS_KINDS)
                raise self._refuse("chaos.kinds", f"{kind!r} is no kind that can be drawn{near}")
        default = Chaos(kinds=())
        return Chaos(
            kinds=tuple(FaultKind(kind) for kind in kinds),
            every_seconds=self._number(table, "chaos.every_seconds", 0.01, SECONDS_MAX, default.every_seconds),
            longest_seconds=self._number(table, "chaos.longest_seconds", 0.01, SECONDS_MAX, default.longest_seconds),
        )

    def _expected(self, table: Mapping[str, Any]) -> dict[str, str]:
        self._known(table, CHECKS, "expected_to_fail")
        return {name: self._text(table, f"expected_to_fail.{name}") for name in table}

    def _fault(self, table: Mapping[str, Any], number: int, limits: ScenarioLimits) -> Fault:
        at = f"fault {number}"
        kind = FaultKind(self._word(table, f"{at}.kind", tuple(FaultKind), None))
        self._known(table, ("kind", "at", *FAULT_KEYS[kind]), f"{at} ({kind})")
        for key in _NEEDED.get(kind, ("nodes",)):
            if key not in table:
                raise self._refuse(f"{at}.{key}", f"a {kind} says which")
        if ("sources" in table) != ("targets" in table):
            raise self._refuse(f"{at}.sources", "sources and targets are named together, or not at all")
        begins = self._number(table, f"{at}.at", 0.0, SECONDS_MAX, None)
        until = self._number(table, f"{at}.until", 0.0, SECONDS_MAX, None) if "until" in table else None
        if begins > limits.faults_seconds:
            raise self._refuse(f"{at}.at", f"{begins:g} s is after limits.faults_seconds, {limits.faults_seconds:g}")
        if until is not None and until <= begins:
            raise self._refuse(f"{at}.until", f"it would end at {until:g} s, before it begins at {begins:g} s")
        if until is not None and until > limits.faults_seconds:
            raise self._refuse(f"{at}.until", f"{until:g} s is after limits.faults_seconds, {limits.faults_seconds:g}")
        if until is not None and table.get("is_forever"):
            raise self._refuse(f"{at}.is_forever", "what has an `until` is not for ever")
        every = (
            self._number(table, f"{at}.every_seconds", 0.01, SECONDS_MAX, None) if "every_seconds" in table else None
        )
        nodes = self._listed(table, f"{at}.nodes")
        last = begins if until is None else until
        if nodes and every is not None and (last := last + (len(nodes) - 1) * every) > limits.faults_seconds:
            raise self._refuse(f"{at}.every_seconds", f"the last node would have its turn until {last:g} s, too late")
        return Fault(
            kind=kind,
            at=begins,
            until=until,
            nodes=nodes,
            groups=self._groups(table, f"{at}.groups"),
            sources=self._listed(table, f"{at}.sources"),
            targets=self._listed(table, f"{at}.targets"),
            both_ways=self._flag(table, f"{at}.both_ways", False),
            every_seconds=every,
            loses_disk=self._flag(table, f"{at}.loses_disk", False),
            is_forever=self._flag(table, f"{at}.is_forever", False),
            backend=self._word(table, f"{at}.backend", BACKENDS, "") or None,
            link=self._link_of(table, at),
            commit_ms=self._number(table, f"{at}.commit_ms", 0.0, 600_000.0, 0.0),
            is_full=self._flag(table, f"{at}.is_full", False),
            is_stalled=self._flag(table, f"{at}.is_stalled", False),
            off_seconds=self._number(table, f"{at}.off_seconds", -1e9, 1e9, 0.0),
        )

    # -- values -----------------------------------------------------------------------------------------------

    def _known(self, table: Mapping[str, Any], known: Iterable[str], at: str) -> None:
        for key in table:
            if key not in tuple(known):
                raise self._refuse(f"{at}.{key}" if at else key, f"there is no such key{_nearest(key, known)}")

    def _value(self, table: Mapping[str, Any], key: str, default: Any) -> Any:
        value = table.get(key.rpartition(".")[2], default)
        if value is None:
            raise self._refuse(key, "it is missing")
        return value

    def _table(self, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self._refuse(key, f"a table is expected: [{key}]")
        return value

    def _text(self, table: Mapping[str, Any], key: str) -> str:
        value = self._value(table, key, None)
        if not isinstance(value, str) or not value.strip():
            raise self._refuse(key, "a text is expected")
        return value.strip()

    def _word(self, table: Mapping[str, Any], key: str, choices: tuple[str, ...], default: str | None) -> str:
        value = self._value(table, key, default)
        if value != default and value not in choices:
            raise self._refuse(key, f"{value!r} is not one of {', '.join(choices)}{_nearest(str(value), choices)}")
        return str(value)

    def _flag(self, table: Mapping[str, Any], key: str, default: bool) -> bool:
        value = self._value(table, key, default)
        if not isinstance(value, bool):
            raise self._refuse(key, f"{value!r} is neither true nor false")
        return value

    def _number(self, table: Mapping[str, Any], key: str, low: float, high: float, default: float | None) -> float:
        value = self._value(table, key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self._refuse(key, f"{value!r} is not a number")
        if not low <= value <= high:
            raise self._refuse(key, f"{value:g} is out of range: {low:g} to {high:g}")
        return float(value)

    def _share(self, table: Mapping[str, Any], key: str, default: float) -> float:
        return self._number(table, key, 0.0, 1.0, default)

    def _whole(self, table: Mapping[str, Any], key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._value(table, key, default)
        if type(value) is not int:
            raise self._refuse(key, f"{value!r} is not a whole number")
        return int(self._number(table, key, low, high, default))

    def _listed(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        """Nodes by name; '*' stands for all, and 'n4..n30' for a row of them."""
        value = self._value(table, key, [])
        if not isinstance(value, list) or (key.rpartition(".")[2] in table and not value):
            raise self._refuse(key, "a list of nodes is expected")
        return self._nodes_of(value, key)

    def _nodes_of(self, written: list[Any], key: str) -> tuple[str, ...]:
        listed: dict[str, None] = {}
        for one in written:
            first, dots, last = str(one).partition("..")
            for node in (first, last) if dots else (first,):
                if node != "*" and node not in self._nodes:
                    raise self._refuse(
                        key, f"there is no node {node!r}; there are {self._nodes[0]} to {self._nodes[-1]}"
                    )
            if dots and self._nodes.index(first) > self._nodes.index(last):
                raise self._refuse(key, f"{one!r} runs backwards: write {last}..{first}")
            if first == "*":
                listed.update(dict.fromkeys(self._nodes))
            elif dots:
                listed.update(dict.fromkeys(self._nodes[self._nodes.index(first) : self._nodes.index(last) + 1]))
            else:
                listed[first] = None
        return tuple(listed)

    def _groups(self, table: Mapping[str, Any], key: str) -> tuple[tuple[str, ...], ...]:
        value = self._value(table, key, [])
        if not isinstance(value, list) or not all(isinstance(one, list) and one for one in value):
            raise self._refuse(key, "a list of lists of nodes is expected")
        groups = tuple(self._nodes_of(one, key) for one in value)
        listed = [node for group in groups for node in group]
        if twice := sorted({node for node in listed if listed.count(node) > 1}):
            raise self._refuse(key, f"{twice[0]} is in two groups")
        return groups
