"""The file of the SQLite store under test."""

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a SQLite store; it is not there yet."""
    return tmp_path / "store.sqlite3"
