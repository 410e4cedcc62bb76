"""`bzzz store check` and `rebuild`, over the file of a data directory."""

import json
import sqlite3
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from node.cli import cli
from tests.unit.node.store.sqlite.files import create, envelope


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    trio.run(create, tmp_path / "store.db", 5)
    return tmp_path


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["store", *arguments])
    return result.exit_code, result.output


def test_a_whole_store_is_checked_and_rebuilt(data_dir: Path) -> None:
    assert _run("check", "--data-dir", str(data_dir)) == (0, "5 versions, all as their digests say\n")
    assert _run("rebuild", "--data-dir", str(data_dir), "--json") == (0, '{"versions": 5}\n')
    code, output = _run("check", "--data-dir", str(data_dir), "--json")
    assert code == 0
    assert json.loads(output) == {"ok": True, "versions": 5, "structure": "", "faults": [], "set_aside": []}


def test_damage_is_named_and_exits_with_1(data_dir: Path) -> None:
    db = sqlite3.connect(data_dir / "store.db")
    db.execute("DELETE FROM heads WHERE sequence = 3")
    db.commit()
    db.close()
    code, output = _run("check", "--data-dir", str(data_dir))
    assert code == 1
    assert f"{envelope(1).address}: its heads are not those of its versions" in output
    assert _run("rebuild", "--data-dir", str(data_dir))[0] == 0
    assert _run("check", "--data-dir", str(data_dir))[0] == 0


def test_a_directory_without_a_store_is_refused(tmp_path: Path) -> None:
    for command in ("check", "rebuild"):
        code, output = _run(command, "--data-dir", str(tmp_path))
        assert code == 2
        assert "there is no store" in output
    assert list(tmp_path.iterdir()) == []
