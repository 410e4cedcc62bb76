"""These tests run commands of `bzzz`, which find a node's data in the home of the user."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _other_home(home: None) -> None:
    """Not the user's."""
