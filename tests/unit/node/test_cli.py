"""`bzzz` itself: its help, its version, wrong use, and what it imports."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import pytest

from node.cli import COMMANDS
from protocols import ucxl
from tests.unit.node.commands.running import ADDRESS, bzzz


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("gett", ADDRESS), "did you mean get?"),
        (("get",), "Missing argument"),
        (("get", ADDRESS, "--consistency", "strong"), "auto"),
        (("get", ADDRESS, "--timeout", "soon"), "not a duration"),
        (("get", ADDRESS, "--timeout", "5"), "5 has no unit; write 5s or 5ms"),
        (("get", ADDRESS, "--timeout", "0s"), "out of range"),
        (("get", ADDRESS, "--timeout", "61s"), "out of range"),
        (("get", ADDRESS, "--timeout", f"{'9' * 400}d"), "out of range"),
        (("flags", "force", "mock", "--reason", "x", "--for", "5"), "5 has no unit"),
        (("flags", "force", "mock", "--reason", "x", "--for", "31d"), "out of range"),
        (("flags", "force", "mock", "--reason", "x", "--for", f"{'9' * 400}d"), "out of range"),
        (("health", "--watch", f"{'9' * 400}d"), "not a number of seconds"),
        (("health", "--watch", "1e400"), "not a number of seconds"),
        (("peers", "--api", "nonsense"), "not host:port"),
        (("peers", "--api", "https://127.0.0.1:1"), "not host:port"),
        (("peers", "--api-token-file", "/nowhere/x"), "cannot be read"),
        (("history", ADDRESS, "--limit", "0"), "--limit"),
        (("delete", ADDRESS, "--meta", "a b=c"), "UCXL-Meta-a b"),
        (("delete", ADDRESS, "--meta", "слово=c"), "no header can carry"),
        (("delete", ADDRESS, "--meta", "a=b\nc"), "line break"),
        (("delete", ADDRESS, "--parent", "a\r\nb"), "line break"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_what_is_wrong(arguments: tuple[str, ...], part: str) -> None:
    result = bzzz(*arguments)
    assert result.exit_code == 2
    assert part in result.stderr


def test_no_command_but_up_imports_what_a_node_is_made_of() -> None:
    """What makes a command slow is what it imports; this is the list of what is known to be."""
    heavy = {"trio", "libp2p", "httptools", "structlog", "yaml", "msgpack", "nacl", "httpx", "rich"}
    commands = sorted(set(COMMANDS.values()))
    script = f"import sys, importlib; [importlib.import_module(m) for m in {commands!r}]; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(found), heavy.intersection(found)


def test_help_lists_every_command() -> None:
    result = bzzz("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"  {command} " in result.stdout
        more = bzzz(command, "--help")
        assert more.exit_code == 0
        for listed in (result.stdout.partition("Commands:")[2], more.stdout.partition("Commands:")[2]):
            assert not [line for line in listed.splitlines() if line.endswith("...")], "cut short"


def test_the_version_is_that_of_the_distribution() -> None:
    assert bzzz("--version").stdout == f"bzzz {version('bzzz')}\n"


def all_help() -> Iterator[tuple[str, str]]:
    paths: list[tuple[str, ...]] = [(name,) for name in COMMANDS]
    while paths:
        path = paths.pop()
        text = bzzz(*path, "--help").stdout
        paths += [(*path, name) for name in re.findall(r"^  (\w+) ", text.partition("Commands:")[2], re.MULTILINE)]
        yield " ".join(path), text


def test_every_address_in_a_help_text_is_one_that_is_taken() -> None:
    found = [(command, address) for command, text in all_help() for address in re.findall(r"ucxl://\S+\w", text)]
    assert {"get", "put"} <= {command for command, _ in found}
    for command, address in found:
        assert not ucxl.parse(address).is_pattern, command
    temporals = re.findall(r"^  (\S+) {2,}.*(?:version|newest)", bzzz("get", "--help").stdout, re.MULTILINE)
    assert len(temporals) == 4
    for temporal in temporals:
        assert not ucxl.parse(ADDRESS.replace("*^", temporal)).is_pattern, temporal
