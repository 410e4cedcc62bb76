"""Fixtures `store` and `rig`: each test that uses them runs over both stores."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.store.base import Store
from tests.contract.stores import STORES, StoreRig


@pytest.fixture(params=STORES)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreRig]:
    async with StoreRig.made(request.param, tmp_path) as rig:
        yield rig


@pytest.fixture
async def store(rig: StoreRig) -> Store:
    return await rig.open()
