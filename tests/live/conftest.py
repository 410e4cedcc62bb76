"""Fixtures of the live tests."""

from collections.abc import Iterator

import pytest

from netsim.lan.namespace import LanUnavailable
from netsim.lan.site import Site, open_site


@pytest.fixture
def site() -> Iterator[Site]:
    """LANs and hosts of this test; it is skipped, with the reason, where this machine cannot make any."""
    try:
        opened = open_site()
    except LanUnavailable as error:
        pytest.skip(f"no LAN can be made here: {error}")
    with opened as made:
        yield made
