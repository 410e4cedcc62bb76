"""`bzzz completion`: the printed scripts in real shells, and what they offer."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli import COMMANDS, cli
from node.commands.options import PROFILES
from node.config.flags import NAMES
from node.config.load import profiles
from tests.unit.node.processes import REPOSITORY

SHELLS = ("bash", "zsh", "fish")
SECONDS_MAX = 60.0


def script(shell: str) -> str:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home without start files, a `bzzz` on the path, and the three scripts."""
    program = tmp_path / "bin" / "bzzz"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m node.cli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    for shell in SHELLS:
        (tmp_path / f"completion.{shell}").write_text(script(shell), encoding="utf-8")
    path = f"{program.parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def offered(environment: dict[str, str], *words: str) -> list[str]:
    """What the function of the bash script offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"source ~/completion.bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _bzzz_completion bzzz"
    call = ["bash", "--norc", "-c", f'{code}; printf "%s\\n" "${{COMPREPLY[@]}}"']
    found = subprocess.run(call, env=environment, capture_output=True, text=True, check=True, timeout=SECONDS_MAX)
    assert found.stderr == ""
    return found.stdout.split()


def test_bash_completes_commands_options_and_values(environment: dict[str, str]) -> None:
    assert offered(environment, "bzzz", "") == list(COMMANDS)
    assert offered(environment, "bzzz", "he") == ["health"]
    assert offered(environment, "bzzz", "put", "--re") == ["--replicated"]
    assert offered(environment, "bzzz", "get", "--consistency", "") == ["auto", "local", "swarm"]
    assert offered(environment, "bzzz", "completion", "") == list(SHELLS)
    assert offered(environment, "bzzz", "up", "--backend", "h") == ["hybrid"]
    assert offered(environment, "bzzz", "up", "--profile", "") == list(PROFILES)


def test_bash_completes_flags_by_name(environment: dict[str, str]) -> None:
    assert offered(environment, "bzzz", "flags", "un") == ["unset"]
    assert offered(environment, "bzzz", "flags", "unset", "") == list(NAMES)
    assert offered(environment, "bzzz", "flags", "set", "read_f") == ["read_freshness_ms="]
    assert offered(environment, "bzzz", "flags", "force", "o") == ["open"]


def test_a_group_offers_its_commands_and_the_options_of_show(environment: dict[str, str]) -> None:
    assert "show" in offered(environment, "bzzz", "pending", "")
    assert offered(environment, "bzzz", "pending", "--ref") == ["--refused"]
    assert offered(environment, "bzzz", "pending", "--refused", "--js") == ["--json"]


def test_an_interactive_bash_completes_commands_and_files(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "decision.md").write_text("x", encoding="utf-8")
    address = "'ucxl://agent:role@project:task/*^/a.md'"
    with _Terminal(["bash", "--norc", "--noprofile", "-i"], environment, tmp_path) as terminal:
        terminal.types("PS1='ready> '; source completion.bash\n")
        terminal.shows("\r\nready> ")
        terminal.types("bzzz compl\t")
        terminal.shows("bzzz completion ")
        terminal.types(f"\x15bzzz put {address} dec\t")  # Ctrl-U clears the line
        terminal.shows(f"bzzz put {address} decision.md ")


class _Terminal:
    """A program at a pseudo-terminal."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self._main, child = pty.openpty()
        self._process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment, cwd=folder, start_new_session=True
        )
        os.close(child)
        self._shown = ""

    def __enter__(self) -> "_Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._main)

    def types(self, text: str) -> None:
        os.write(self._main, text.encode())

    def shows(self, text: str) -> None:
        """Wait until the terminal shows a text after all that was waited for before."""
        deadline = time.monotonic() + SECONDS_MAX
        while text not in self._shown:
            readable, _, _ = select.select([self._main], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{text!r} is not in {self._shown!r}"
            self._shown += os.read(self._main, 65536).decode("utf-8", "replace")
        self._shown = self._shown.partition(text)[2]


@pytest.mark.parametrize(
    ("shell", "check"),
    [
        ("zsh", lambda text: text.startswith("#compdef bzzz") and "_BZZZ_COMPLETE=zsh_complete" in text),
        ("fish", lambda text: "complete --no-files --command bzzz" in text and "_BZZZ_COMPLETE=fish_complete" in text),
    ],
)
def test_the_script_of_the_other_shells_registers_and_parses(
    environment: dict[str, str], shell: str, check: Callable[[str], bool]
) -> None:
    assert check(script(shell))
    if program := shutil.which(shell):
        file = Path(environment["HOME"]) / f"completion.{shell}"
        subprocess.run([program, "-n", str(file)], env=environment, check=True, timeout=SECONDS_MAX)


@pytest.mark.parametrize(
    ("shell", "variables", "shown"),
    [
        ("zsh", {"COMP_WORDS": "bzzz hea", "COMP_CWORD": "1"}, "plain\nhealth\nShow whether the node works"),
        ("fish", {"COMP_WORDS": "bzzz hea", "COMP_CWORD": "hea"}, "plain,health\tShow whether the node works"),
    ],
)
def test_the_other_shells_get_descriptions_too(
    environment: dict[str, str], shell: str, variables: dict[str, str], shown: str
) -> None:
    """What their scripts call: `bzzz` with these variables."""
    found = subprocess.run(
        ["bzzz"], env={**environment, **variables, "_BZZZ_COMPLETE": f"{shell}_complete"},
        capture_output=True, text=True, check=True, timeout=SECONDS_MAX,
    )  # fmt: skip
    assert shown in found.stdout


def test_completion_imports_no_part_of_a_node(environment: dict[str, str]) -> None:
    """A completion must be quick, and the imports decide how quick it is."""
    heavy = ("trio", "libp2p", "httptools", "structlog", "msgpack", "nacl", "netsim.virtual")
    for words in ("bzzz ", "bzzz up --", "bzzz flags set "):
        variables = {"_BZZZ_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        found = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "node.cli"], env={**environment, **variables},
            capture_output=True, text=True, check=True, timeout=SECONDS_MAX,
        )  # fmt: skip
        imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
        assert "click" in imported
        assert not imported.intersection(heavy), words


def test_the_profiles_that_are_offered_are_those_there_are() -> None:
    assert sorted(profiles()) == list(PROFILES)
