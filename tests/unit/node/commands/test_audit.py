"""`bzzz audit`."""

from pathlib import Path

from click.testing import CliRunner

from node.cli import cli


def test_an_audit_log_with_nothing_in_it_is_a_broken_one(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"")
    ended = CliRunner().invoke(cli, ["audit", "verify", "--file", str(log)])
    assert ended.exit_code == 1
    assert "line 1 is broken: it is missing" in ended.output
