"""Fixtures of the tests of commands."""

from collections.abc import Iterator

import pytest

from tests.unit.node.commands.running import served


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BZZZ_API", "BZZZ_API_TOKEN", "BZZZ_API_TOKEN_FILE", "BZZZ_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served() as url:
        monkeypatch.setenv("BZZZ_API", url)
        yield url
