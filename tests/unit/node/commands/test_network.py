"""`bzzz network create`: the phrase, and the key file beside it."""

import os
from pathlib import Path

from protocols.network_key import read_key_file, read_phrase
from tests.unit.node.commands.running import bzzz, json_of


def test_each_call_makes_another_key() -> None:
    first, second = (bzzz("network", "create", "--name", "lab") for _ in range(2))
    assert first.stdout != second.stdout
    assert "keep it secret" in first.stderr
    assert read_phrase(first.stdout).network == "lab"


def test_the_key_file_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    made = json_of("network", "create", "--key-file", str(path))
    assert (made["network"], made["key_file"]) == ("bzzz", str(path))
    assert read_key_file(path.read_bytes()) == read_phrase(made["join"]).key
    assert path.stat().st_mode & 0o777 == 0o600
    again = bzzz("network", "create", "--key-file", str(path))
    assert (again.exit_code, again.stdout) == (1, "")
    assert os.strerror(17) in again.stderr


def test_a_name_that_is_none_is_refused() -> None:
    assert bzzz("network", "create", "--name", "a b").exit_code == 2
