"""Fixtures of the live tests."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from netsim.lan.namespace import LanUnavailable
from netsim.lan.site import Site, open_site
from tests.live.node_processes import Process, Up


@pytest.fixture(scope="module", autouse=True)
def _other_home(home: None) -> None:
    """Nodes that are started without a data directory have theirs not in the user's home."""


@pytest.fixture
def site() -> Iterator[Site]:
    """LANs and hosts of this test; it is skipped, with the reason, where this machine cannot make any."""
    try:
        opened = open_site()
    except LanUnavailable as error:
        pytest.skip(f"no LAN can be made here: {error}")
    with opened as made:
        yield made


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Starts nodes on free ports, in the data directory `data` unless another is named, and ends them all."""
    processes: list[Process] = []

    def start(
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        data: str = "data",
        descriptors: int | None = None,
    ) -> Process:
        common = ["--data-dir", str(tmp_path / data), "--json"]
        if "--api" not in arguments:
            common += ["--api", "127.0.0.1:0"]
        if "--listen" not in arguments and "mock" not in arguments:
            common += ["--listen", "/ip4/127.0.0.1/tcp/0"]
        processes.append(Process(tmp_path / "log", *common, *arguments, variables=environment, descriptors=descriptors))
        return processes[-1]

    yield start
    for process in processes:
        process.end()
