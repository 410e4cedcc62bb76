"""`bzzz config`."""

from pathlib import Path

import pytest

from tests.unit.node.commands.running import TOKEN, bzzz, json_of


def test_config_show_names_each_value_and_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BZZZ_API_TOKEN", TOKEN)
    monkeypatch.setenv("BZZZ_REPLICATION", "7")
    shown = json_of("config", "show")
    assert shown["replication"] == {"value": "7", "origin": "environment BZZZ_REPLICATION"}
    assert shown["api_token"]["value"] == "********"
    assert TOKEN not in bzzz("config", "show").output
    monkeypatch.setenv("BZZZ_TYPO", "x")
    assert bzzz("config", "show").exit_code == 2


def test_config_check_says_whether_a_node_could_start_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("bzzz: {dht_backend: real, fallback_on_error: true}", encoding="utf-8")
    good = bzzz("config", "check", str(path))
    assert good.exit_code == 0
    assert "is hybrid" in good.stderr
    path.write_text("bzzz: {nam: x}", encoding="utf-8")
    bad = bzzz("config", "check", str(path))
    assert bad.exit_code == 2
    assert "did you mean name?" in bad.stderr


@pytest.mark.parametrize("node", ["/dns4/a..b/tcp/1", f"/dns/{'a' * 64}/tcp/1", "a..b:8080", f"{'a.' * 127}b:8080"])
def test_config_check_refuses_a_bootstrap_node_whose_name_cannot_be_a_host_name(node: str, tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(f"bzzz: {{dht_bootstrap_nodes: ['{node}']}}", encoding="utf-8")
    refused = bzzz("config", "check", str(path))
    assert refused.exit_code == 2
    assert "cannot be the host" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_an_empty_file_name_is_no_configuration() -> None:
    for arguments in (("show", "--config", ""), ("show", "--profile", ""), ("check", "")):
        refused = bzzz("config", *arguments)
        assert refused.exit_code == 2
        assert "is empty" in refused.stderr
