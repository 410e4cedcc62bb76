"""The command line under nonsense: whatever is given, the end is an exit code of the table and at most a few lines."""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.cli import cli
from node.commands.up import up_command
from node.config.file import ConfigError
from node.config.load import load
from node.config.settings import OPTIONS, Settings
from tests.unit.node.commands.running import ADDRESS, put, served
from tests.unit.node.processes import bzzz_process

NOT_UTF8 = "\udcff\udc80"
"""Bytes that are not UTF-8, as Python has them in `sys.argv`."""
NONSENSE = (
    "", " ", "-", "--", "0", "-1", "nan", "inf", "1e400", "9" * 400, "9" * 5000, "99999999999999999999",
    "9" * 400 + "d", NOT_UTF8, f"a{NOT_UTF8}", "\x1b[2J", "a\nb", "a\r\nb", "\u202e", "\U0001f600", "a" * 100_000,
    "\\", "%s%n", "{0}", "/", "/tmp", "/dev/null", "/dev/full", "/dev/zero", "/nowhere/x", "~no-such-user/x",
    "a" * 300, "a/" * 2500, "a..b:1", f"{'a' * 64}.b:1", "[::1]:1", "[::1%25x]:1", "[fe80::1%lo]:1", "1.2.3.4.5:1", "http://",
    "ß.localhost:1", "127.0.0.1:0", "127.0.0.1:99999", f"127.0.0.1:{'1' * 5000}", f"{NOT_UTF8}:1", "/dns4/a..b/tcp/1",
    "a=b", "=", "a=", "=b", f"rollout_percent={NOT_UTF8}", "rollout_percent=nan", "deadline_ms=1e400",
    f"deadline_ms={'9' * 5000}", f"cache_ttl={'9' * 500}d", "backend=[1]", "00" * 32, '"', "*", "~~1", "x/y", "a\tb/c",
    ADDRESS, ADDRESS.replace("*^", "~~1"), ADDRESS.replace("*^", f"~~{'9' * 30}"), f"{ADDRESS}{NOT_UTF8}",
    ADDRESS.replace("*^", "9999-99-99T99:99:99Z"), ADDRESS.replace("*^", f"{'9' * 5000}-01-01T00:00:00Z"),
)  # fmt: skip
RUNS_ON = {("up",), ("sim", "run"), ("sim", "live")}
"""Commands that would run for long with arguments that are valid. They are tried as processes below."""


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), name)
        assert found is not None
        yield from leaves(found, (*path, name))


LEAVES = [(path, command) for path, command in leaves(cli) if path not in RUNS_ON]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its options and arguments, most of them nonsense."""
    nonsense = st.sampled_from(NONSENSE) | st.text(st.characters(exclude_characters="\0"), max_size=8)
    path, command = draw(st.sampled_from(LEAVES))
    words = list(path)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            count = draw(st.integers(0, 3)) if parameter.nargs == -1 else int(parameter.required or draw(st.booleans()))
            words += [draw(nonsense) for _ in range(count)]
        elif parameter.required or draw(st.integers(0, 3)) == 0:
            option = draw(st.sampled_from(parameter.opts))
            if option == "--watch":
                words.append(f"{option}={draw(st.sampled_from(('', 'x', 'nan', '1e400', '-1', '9' * 400 + 'd')))}")
            else:
                words += [option] if getattr(parameter, "is_flag", False) else [option, draw(nonsense)]
    if draw(st.integers(0, 9)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(nonsense))
    return words


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with served() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BZZZ_API", url)
        put(b"1")
        yield url


@given(command_lines(), st.sampled_from([b"", b"x", b"\xff\0"]))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_command_line_is_a_traceback(node: str, words: list[str], stdin: bytes) -> None:
    result = CliRunner(env={"BZZZ_API": node}).invoke(cli, words, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
    assert result.exit_code in range(10), words
    assert "Traceback" not in result.output
    assert "UCXL-500" not in result.output, words
    if result.exit_code:
        assert result.output.strip(), words


def values_of(names: list[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(names), st.sampled_from(NONSENSE), max_size=3)


@given(values_of([parameter.name or "" for parameter in up_command.params]), values_of([o.variable for o in OPTIONS]))
@settings(max_examples=300, deadline=None)
def test_no_setting_of_a_node_is_a_traceback(options: dict[str, str], environment: dict[str, str]) -> None:
    for name in ("as_json", "open_", "no_mdns"):
        options.pop(name, None)
    lists = {name: (value,) if name in ("listen", "bootstrap") else value for name, value in options.items()}
    try:
        assert isinstance(load(lists, environment), Settings)
    except ConfigError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "--api", "a..b:0"),
        ("up", "--api", b"a\xff:0"),
        ("up", "--api", f"{'a' * 64}.b:0"),
        ("up", "--name", b"\xff"),
        ("up", "--config", b"\xff"),
        ("up", "--config", "/dev/zero"),
        ("up", "--profile", b"\xff"),
        ("up", "--api-token-file", "/dev/zero"),
        ("up", "--data-dir", "/dev/null"),
        ("up", "--data-dir", "a" * 300),
        ("up", "--data-dir", "/tmp/" + "a/" * 2500),
        ("sim", "run", b"\xff"),
        ("sim", "run", "flapping-link", "--trace", "a" * 300 + "/x"),
        ("sim", "run", "flapping-link", "--jobs", "100000"),
        ("sim", "run", "flapping-link", "--seed", "9" * 5000),
        ("sim", "live", "--history", b"\xff/x"),
        ("sim", "live", "--seconds", "1e400"),
        ("store", "check", "--data-dir", "/dev/null"),
        ("store", "check", "--data-dir", ""),
        (b"\xff",),
        (b"--\xff",),
    ],
    ids=lambda arguments: ascii(arguments)[:50],
)
def test_what_a_node_or_a_simulation_cannot_use_is_wrong_use(arguments: tuple[str | bytes, ...]) -> None:
    ended = bzzz_process(*arguments)
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr
    assert ended.stderr.decode().strip().splitlines()[-1].isprintable()


def test_arguments_that_are_not_utf8_reach_the_node_as_they_are(node: str, tmp_path: Path) -> None:
    for command in ("get", "history", "delete"):
        assert bzzz_process(command, os.fsencode(ADDRESS) + b"\xff", BZZZ_API=node).returncode == 9
    file = os.path.join(os.fsencode(tmp_path), b"a\xff.txt")
    with open(file, "wb") as opened:
        opened.write(b"x")
    assert bzzz_process("put", ADDRESS, file, BZZZ_API=node).returncode == 0


def test_commands_work_in_a_directory_that_is_gone(node: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    def go_away() -> None:
        os.chdir(gone)
        if gone.exists():
            gone.rmdir()

    for arguments, code in ((("id",), 0), (("config", "show"), 0), (("sim", "run", "x", "--trace", "y"), 2)):
        gone.mkdir(exist_ok=True)
        ended = bzzz_process(*arguments, before=go_away, BZZZ_API=node)
        assert (ended.returncode, b"Traceback" in ended.stderr) == (code, False)
