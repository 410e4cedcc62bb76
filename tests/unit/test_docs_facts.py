"""The tables and examples of the documents against the code."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from node.swarm import base
from node.swarm.limits import SwarmLimits
from protocols import clock, envelope, messages, ucxl
from protocols.policy.reputation import POINTS, Offence
from tests.unit.vectors import load

DOCS = Path(__file__).parents[2] / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")


class Row(NamedTuple):
    """A row of a table, its cells stripped; `heading` is the one above it."""

    heading: str
    cells: tuple[str, ...]


def rows(text: str) -> Iterator[Row]:
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not set(line) <= set("|- :"):
            yield Row(heading, tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line[1:-1])))


def under(text: str, heading: str) -> list[tuple[str, ...]]:
    """The rows under a heading, those of the heads of tables among them left out."""
    found = [row.cells for row in rows(text) if row.heading == heading]
    heads = re.findall(r"^\|(.*)\|\n\|[-| :]+\|$", text, re.MULTILINE)
    return [cells for cells in found if "|".join(f" {cell} " for cell in cells).replace("  ", " ") not in heads]


def fences(text: str, kind: str) -> list[tuple[str, str]]:
    """What stands behind the kind in the first line of a fenced block, and what is in the block."""
    return re.findall(rf"^```{kind}(?: ([^\n]*))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def bare(cell: str) -> str:
    return cell.strip("`")


# -- protocol.md --------------------------------------------------------------------------------------------------

HEX = fences(PROTOCOL, "hex")


@pytest.mark.parametrize(("about", "block"), HEX, ids=[about for about, _ in HEX])
def test_examples_in_hex_are_those_of_the_vectors(about: str, block: str) -> None:
    file, group, name, field = about.split()
    vector = next(one for one in load(file)[group] if one["name"].replace(" ", "-").startswith(name))
    assert re.sub(r"#.*|\s", "", block) == vector[field]


def test_the_protocol_has_an_example_of_an_envelope_and_one_of_a_stream() -> None:
    assert {about.split()[3] for about, _ in HEX} == {"canonical", "digest", "signature", "stream"}


def test_every_message_is_in_the_table_with_its_kind_and_its_fields() -> None:
    told: dict[str, tuple[str, ...]] = {}
    for kind, message, of_it in under(PROTOCOL, "Messages"):
        names = told[f"{kind} {bare(message)}"] = tuple(re.findall(r"`(\w+)`", of_it))
        if of_it == "the same":
            told[f"{kind} {bare(message)}"] = told["1 Hello"]
        assert names or of_it in ("none", "the same")
    golden = {f"{one['kind']} {one['message']}": tuple(one["fields"]) for one in load("messages")["messages"]}
    assert told == golden
    assert {name.split()[1] for name in told} == {message.__name__ for message in get_args(messages.Message)}


def test_the_fields_of_an_envelope_are_in_their_order() -> None:
    told = [bare(cells[1]) for cells in under(PROTOCOL, "The bytes")]
    assert told == ["format", *(name for name in load("envelopes")["envelopes"][0] if name in told[1:-1]), "signature"]


CONSTANTS: dict[str, int] = {
    name: value
    for module in (messages, base, clock, envelope, ucxl)
    for name, value in vars(module).items()
    if name.isupper() and type(value) is int
}


def test_constants_that_the_protocol_names_have_the_value_that_it_says() -> None:
    told = re.findall(r"([0-9][0-9,]*)[^.|0-9]{0,40}?\(`([A-Z_]+)`\)", PROTOCOL)
    assert len(told) >= 10
    for value, name in told:
        assert CONSTANTS[name] == int(value.replace(",", "")), name


def test_limits_have_the_value_that_the_protocol_says() -> None:
    limits, told = SwarmLimits(), under(PROTOCOL, "Limits")
    assert len(told) > 15
    assert {bare(name) for name, *_ in told} <= {one.name for one in fields(limits)}
    for name, value, _ in told:
        assert str(getattr(limits, bare(name))) == value, name


def test_offences_have_the_points_that_the_protocol_says() -> None:
    told: dict[str, Any] = {bare(name): float(points) for name, points, _ in under(PROTOCOL, "Blame")}
    assert told == {offence.name: POINTS[offence] for offence in Offence}
