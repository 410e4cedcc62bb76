"""The tables and examples of the documents against the code."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

import click
import msgpack
import pytest

from netsim.checks.registry import CHECKS
from netsim.faults.kinds import KINDS
from netsim.scenario import toml
from node import cli
from node.api.refusal import TooSlow
from node.commands.up import up_command
from node.config import values
from node.config.flags import NAMES, Force
from node.config.load import profiles
from node.config.options import Option
from node.config.settings import OPTIONS, Settings
from node.process import identity
from node.process.run import STORE_NAME
from node.services.control import audit_file
from node.store.sqlite import clean_end
from node.swarm import base
from node.swarm.limits import SwarmLimits
from protocols import clock, errors, header, messages, ucxl
from protocols.errors import Malformed
from protocols.policy.reputation import POINTS, Offence
from tests.unit.vectors import load

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
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
    assert {about.split()[3] for about, _ in HEX} == {"header", "digest", "signature", "encoded", "stream"}


def test_every_message_is_in_the_table_with_its_kind_and_its_fields() -> None:
    documented: dict[str, tuple[str, ...]] = {}
    for kind, message, of_it in under(PROTOCOL, "Messages"):
        names = documented[f"{kind} {bare(message)}"] = tuple(re.findall(r"`(\w+)`", of_it))
        if of_it == "the same":
            documented[f"{kind} {bare(message)}"] = documented["1 Hello"]
        assert names or of_it in ("none", "the same")
    golden = {f"{one['kind']} {one['message']}": tuple(one["fields"]) for one in load("messages")["messages"]}
    assert documented == golden
    assert {name.split()[1] for name in documented} == {message.__name__ for message in get_args(messages.Message)}


def test_the_fields_of_an_envelope_are_in_their_order() -> None:
    documented = [bare(cells[1]) for cells in under(PROTOCOL, "The header")]
    golden = load("envelopes")["envelopes"][0]
    assert documented == [name for name in golden if name in documented]
    assert len(documented) == len(msgpack.unpackb(bytes.fromhex(golden["header"])))


CONSTANTS: dict[str, int] = {
    name: value
    for module in (messages, base, clock, header, ucxl)
    for name, value in vars(module).items()
    if name.isupper() and type(value) is int
}


def test_constants_that_the_protocol_names_have_the_value_that_it_says() -> None:
    documented = re.findall(r"([0-9][0-9,]*)[^.|0-9]{0,40}?\(`([A-Z_]+)`\)", PROTOCOL)
    assert len(documented) >= 10
    for value, name in documented:
        assert CONSTANTS[name] == int(value.replace(",", "")), name


def test_limits_have_the_value_that_the_protocol_says() -> None:
    limits, documented = SwarmLimits(), under(PROTOCOL, "Limits")
    assert len(documented) > 15
    assert {bare(name) for name, *_ in documented} <= {one.name for one in fields(limits)}
    for name, value, _ in documented:
        assert str(getattr(limits, bare(name))) == value, name


def test_offences_have_the_points_that_the_protocol_says() -> None:
    documented: dict[str, Any] = {bare(name): float(points) for name, points, _ in under(PROTOCOL, "Blame")}
    assert documented == {offence.name: POINTS[offence] for offence in Offence}


# -- ucxl.md ------------------------------------------------------------------------------------------------------

UCXL = (DOCS / "ucxl.md").read_text(encoding="utf-8")


def test_every_example_of_an_address_is_one() -> None:
    examples = [cells for cells in under(UCXL, "Examples") if not cells[1].startswith("`UCXL-")]
    assert len(examples) >= 10
    for address, meaning in examples:
        parsed = ucxl.parse(bare(address))
        assert parsed.is_pattern is (meaning == "a pattern"), address
        assert parsed.path or meaning.endswith("without a path"), address


def test_every_example_of_a_refusal_is_refused_with_its_code() -> None:
    refused = [cells for cells in under(UCXL, "Examples") if cells[1].startswith("`UCXL-")]
    assert len(refused) >= 5
    for address, code in refused:
        with pytest.raises(Malformed) as error:
            ucxl.parse(bare(address))
        assert error.value.code == bare(code), address


def test_canonical_forms_are_those_that_ucxl_says() -> None:
    documented = under(UCXL, "Canonical form")
    assert len(documented) >= 3
    for given, canonical in documented:
        assert ucxl.parse(bare(given)).canonical == bare(canonical)


def test_patterns_cover_what_ucxl_says() -> None:
    documented = under(UCXL, "Patterns")
    assert {covers for _, _, covers in documented} == {"yes", "no"}
    for pattern, address, covers in documented:
        assert ucxl.matches(ucxl.parse(bare(pattern)), ucxl.parse(bare(address))) is (covers == "yes"), pattern


def test_every_code_is_in_the_table_of_codes() -> None:
    kinds, codes = [errors.BzzzError, TooSlow], {errors.OK, errors.CREATED, errors.ACCEPTED, errors.NO_CONTENT}
    for kind in kinds:
        codes.add(kind.code)
        kinds += kind.__subclasses__()
    assert {bare(code) for code, _ in under(UCXL, "Codes")} == codes


# -- configuration.md ---------------------------------------------------------------------------------------------

CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")


def settings_of(heading: str) -> dict[str, tuple[str, set[str], str]]:
    """The environment variable, the other names and the default of each row."""
    documented = {}
    for cells in under(CONFIGURATION, heading):
        if len(cells) == 5:
            name, variable, others, default, _ = cells
            documented[bare(name)] = bare(variable), set(re.findall(r"`([^`]+)`", others)), bare(default)
    return documented


def default_of(option: Option) -> str:
    value = getattr(Settings(), option.field)
    match value:
        case None | ():
            return "-"
        case "":
            return "the host name"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(value)
        case float():
            return f"{value:g}"
        case int() if option.field.endswith("_ms"):
            return values.duration(value)
        case _:
            return str(value)


def test_every_setting_and_flag_is_in_its_table() -> None:
    settings, flags = settings_of("Settings"), settings_of("Flags")
    current = [option for option in OPTIONS if not option.is_older]
    assert set(flags) == set(NAMES)
    assert set(settings) == {option.names[0] for option in current if option.field not in NAMES}
    for option in current:
        name = option.field if option.field in NAMES else option.names[0]
        variable, others, default = (flags if option.field in NAMES else settings)[name]
        assert variable == option.variable
        assert others | {name} == {*option.names, name}, name
        assert default == default_of(option), name


def test_older_names_are_documented() -> None:
    for option in (option for option in OPTIONS if option.is_older):
        assert option.variable in CONFIGURATION and f"`{option.names[0]}`" in CONFIGURATION


def test_every_option_of_up_is_documented() -> None:
    documented = {
        re.findall(r"--[a-z-]+", option)[0] for option, *_ in under(CONFIGURATION, "Settings") if "`--" in option
    }
    own = {option.opts[0] for option in up_command.params} - {"--config", "--profile", "--json"}
    assert documented == own
    names = {option.names[0] for option in OPTIONS}
    assert {bare(cells[1]) for cells in under(CONFIGURATION, "Settings") if cells[0].startswith("`--")} <= names


def test_every_profile_is_documented() -> None:
    assert {bare(name) for name, _ in under(CONFIGURATION, "Profiles")} == set(profiles())


def test_every_override_is_documented() -> None:
    assert {bare(name) for name, _ in under(CONFIGURATION, "Overrides")} == {force.value for force in Force}


# -- operations.md ------------------------------------------------------------------------------------------------

OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")


def test_metrics_in_alerts_exist() -> None:
    known = set(
        re.findall(r'"(bzzz_[a-z_]+)"', "".join(path.read_text("utf-8") for path in (ROOT / "node").rglob("*.py")))
    )
    documented = set(
        re.findall(r"\bbzzz_[a-z_]+", "".join(cells[0] + cells[1] for cells in under(OPERATIONS, "Alerts")))
    )
    assert len(documented) >= 8
    assert documented <= known


def test_every_file_of_a_data_directory_is_documented() -> None:
    documented = {
        name for cells in under(OPERATIONS, "The data directory") for name in re.findall(r"`([^`]+)`", cells[0])
    }
    made = {identity.FILE_NAME, STORE_NAME, f"{STORE_NAME}-wal", f"{STORE_NAME}-shm", f"{STORE_NAME}.lock", "lock"}
    made.add(clean_end.note_of(Path(STORE_NAME)).name)
    rotated = {name for name in documented if re.fullmatch(r"audit\.\d+-\d+\.log", name)}
    assert len(rotated) == 1
    assert documented == made | rotated | {audit_file.FILE_NAME}


def test_exit_codes_are_those_of_the_command_line() -> None:
    documented = {code for code, _ in under(OPERATIONS, "Exit codes")}
    help_text = cli.cli.get_help(click.Context(cli.cli))
    assert documented == {*re.findall(r"^ +([0-9])  ", help_text, re.MULTILINE), "130"}


def test_every_component_of_health_is_documented() -> None:
    documented = [bare(name) for name, *_ in under(OPERATIONS, "Health")]
    source = (ROOT / "node/services/observe/health_report.py").read_text("utf-8")
    assert documented == re.findall(r'component="(\w+)"', source)


@pytest.mark.parametrize("document", ["operations.md", "configuration.md", "testing.md", "../README.md"])
def test_every_command_line_of_a_document_is_one(document: str) -> None:
    """The commands, their subcommands and options exist; nothing is run."""
    lines = [
        line for _, block in fences((DOCS / document).read_text("utf-8"), "console") for line in block.splitlines()
    ]
    calls = [
        part.strip()
        for line in lines
        if line.startswith("$ ")
        for part in line[2:].split("|")
        if " bzzz " in f" {part}"
    ]
    for call in calls:
        words = shlex.split(call[call.index("bzzz ") + 5 :], comments=True)
        command: click.Command = cli.cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, call
            command = found
        options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        if isinstance(command, click.Group):
            show = command.get_command(click.Context(command), "show")
            options |= {name for one in show.params for name in one.opts} if show is not None else set()
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= options, call


# -- testing.md ---------------------------------------------------------------------------------------------------

TESTING = (DOCS / "testing.md").read_text(encoding="utf-8")


def test_every_check_is_documented_in_its_order() -> None:
    assert [bare(check) for check, _ in under(TESTING, "Checks")] == list(CHECKS)


def test_the_scenario_of_the_documents_is_one(tmp_path: Path) -> None:
    ((_, scenario),) = fences(TESTING, "toml")
    (tmp_path / "mine.toml").write_text(scenario, encoding="utf-8")
    assert toml.load(str(tmp_path / "mine.toml")).nodes


def test_every_kind_of_fault_is_documented() -> None:
    assert {bare(kind) for kind, _ in under(TESTING, "Writing a scenario")} == set(KINDS)
