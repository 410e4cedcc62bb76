"""`bzzz up`: settings that are wrong."""

import pytest

from tests.unit.node.commands.running import bzzz


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--api", "0.0.0.0:0"], ["0.0.0.0:0 is not on loopback", "--api-token-file"]),
        (["--api", "nonsense"], ["--api", "not host:port"]),
        (["--api-token-file", "/dev/null"], ["token", "empty"]),
        (["--listen", "nonsense"], ["--listen", "not a multiaddr"]),
        (["--listen", "/ip4/0.0.0.0/tcp/0"], ["not on loopback", "--open"]),
        (["--bootstrap", "/ip4/127.0.0.1/udp/1"], ["--bootstrap", "not a multiaddr"]),
        (["--backend", "hybird"], ["--backend", "mock, real, hybrid"]),
        (["--config", "/nowhere/node.yaml"], ["/nowhere/node.yaml", "No such file"]),
        (["--config", ""], ["--config is empty"]),
        (["--config", " "], ["--config is empty"]),
        (["--profile", ""], ["--profile is empty"]),
        (["--log-format", "xml"], ["--log-format", "text, json"]),
        (["--name", "a b"], ["--name", "is not a name"]),
    ],
)
def test_up_refuses_wrong_settings_in_one_clear_line(arguments: list[str], parts: list[str]) -> None:
    result = bzzz("up", "--json", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("bzzz: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr
