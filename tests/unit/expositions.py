"""A strict parser of Prometheus' text format 0.0.4, with the rules of its linter: a broken rule is an `AssertionError`.

It follows the description of the format, and is independent of the library that writes the text.
"""

import re
from dataclasses import dataclass, field

_NAME = re.compile(r"[a-z_:][a-z0-9_:]*")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_NOT_BASE = (
    "_ms",
    "_milliseconds",
    "_minutes",
    "_kb",
    "_kilobytes",
    "_percent",
    "_us",
    "_microseconds",
    "_msec",
    "_sec",
)
_SUFFIXES = ("_bucket", "_sum", "_count")
Labels = tuple[tuple[str, str], ...]


@dataclass
class Read:
    """One family: its samples are by (name, labels in the order of their names)."""

    kind: str
    help: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


def read(text: str) -> dict[str, Read]:
    """Parse a text; every family by name."""
    assert text.endswith("\n")
    families: dict[str, Read] = {}
    helps: dict[str, str] = {}
    current = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, text = line.split(" ", 3)
            assert name not in helps, f"two HELPs of {name}"
            helps[name] = text
        elif line.startswith("# TYPE "):
            _, _, current, kind = line.split(" ")
            assert current not in families, f"two TYPEs of {current}"
            assert kind in ("counter", "gauge", "histogram")
            assert helps.get(current, "").strip(), f"no HELP of {current}"
            families[current] = Read(kind, helps[current])
        elif line:
            _take(families, current, line)
    assert set(helps) == set(families)
    for name, family in families.items():
        _lint(name, family)
    return families


def _take(families: dict[str, Read], current: str, line: str) -> None:
    match = _SAMPLE.fullmatch(line)
    assert match, f"no sample: {line}"
    name, inside, value = match.groups()
    family = families[current]
    allowed = [current + suffix for suffix in _SUFFIXES] if family.kind == "histogram" else [current]
    assert name in allowed, f"{name} stands under {current}"
    pairs, rest = [], inside or ""
    while rest:
        label = _LABEL.match(rest)
        assert label, f"broken labels: {line}"
        pairs.append((label[1], re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], label[2])))
        rest = rest[label.end() :]
    labels = tuple(sorted(pairs))
    assert len({name for name, _ in labels}) == len(labels), f"a label twice: {line}"
    assert (name, labels) not in family.samples, f"a sample twice: {line}"
    family.samples[name, labels] = float(value)


def _lint(name: str, family: Read) -> None:
    assert _NAME.fullmatch(name), f"{name} is not in snake case"
    assert (family.kind == "counter") == name.endswith("_total"), f"{name} is a {family.kind}"
    bare = name.removesuffix("_total")
    assert not bare.endswith((*_NOT_BASE, *_SUFFIXES)), f"{name} has no base unit, or an ending of histograms"
    assert family.kind not in name.split("_"), f"{name} names its type"
    for (_, labels), value in family.samples.items():
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label, _ in labels)
        assert family.kind == "gauge" or value >= 0.0
    if family.kind == "histogram":
        _check_histogram(name, family)


def _check_histogram(name: str, family: Read) -> None:
    buckets: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            bound = dict(labels)["le"]
            buckets.setdefault(tuple(pair for pair in labels if pair[0] != "le"), []).append((float(bound), value))
    for labels, found in buckets.items():
        assert found == sorted(found), f"{name}{labels}: bounds or counts that do not ascend"
        assert [count for _, count in found] == sorted(count for _, count in found)
        assert found[-1][0] == float("inf")
        assert family.samples[f"{name}_count", labels] == found[-1][1]
        assert family.samples[f"{name}_sum", labels] >= 0.0
    others = {labels for sample, labels in family.samples if sample != f"{name}_bucket"}
    assert others == set(buckets)
