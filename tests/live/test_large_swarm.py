"""Ten nodes that keep four connections each: unused ones end, and every node still writes and reads everything."""

import signal
from collections import Counter
from typing import Any

from tests.live.node_processes import Up, call, data_of, envelope
from tests.until import block_until

COUNT, KEPT = 10, 4


def peers(api: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = data_of(api, "/v1/peers")["peers"]
    return found


def states(api: str) -> Counter[str]:
    return Counter(peer["state"] for peer in peers(api))


def address(number: int) -> str:
    return f"ucxl://agent:role@project:task/*^/notes/{number}"


def nodes(up: Up) -> list[tuple[Any, str]]:
    """Start them, and wait until each knows all; each process with its API."""
    variables = {"BZZZ_CONNECTIONS_KEPT": str(KEPT), "BZZZ_REPLICATION": "3"}
    started: list[tuple[Any, str]] = []
    for number in range(COUNT):
        first = () if not started else ("--bootstrap", started[0][1].removeprefix("http://"))
        process = up(*first, data=f"n{number}", environment=variables)
        started.append((process, process.ready()["api"]))
    for _, api in started:
        block_until(lambda api=api: len(peers(api)) == COUNT - 1, seconds=60.0, what="it knows all")  # type: ignore[misc]
    return started


def test_nodes_of_a_large_swarm_keep_few_connections_and_reach_each_other(up: Up) -> None:
    swarm = nodes(up)
    apis = [api for _, api in swarm]

    def is_let_go() -> bool:
        return all({*states(api)} == {"connected", "idle"} for api in apis)

    block_until(is_let_go, seconds=120.0, what="connections that nobody uses end")
    for number, api in enumerate(apis):
        assert call(api, envelope(address(number)), method="PUT", body=b"%d" % number)[0] in (200, 201)
    for at, api in enumerate(apis):
        for number in (at, (at + 3) % COUNT, (at + 7) % COUNT):
            assert call(api, envelope(address(number))) == (200, b"%d" % number)
        assert call(api, envelope(address(1000 + at)))[0] == 404
        assert data_of(api, "/health")["status"] == "healthy"
    block_until(lambda: not any(data_of(api, "/v1/pending")["count"] for api in apis), what="all hints are delivered")
    victim, _ = swarm[5]
    victim.popen.send_signal(signal.SIGKILL)
    victim.popen.wait()
    rest = [api for at, api in enumerate(apis) if at != 5]
    for at, api in enumerate(rest):
        for number in range(COUNT):
            assert call(api, envelope(address(number))) == (200, b"%d" % number), f"{number} at {at}"
