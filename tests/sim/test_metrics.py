"""Metrics of a node while its peers freeze and thaw, and the trace of a call in the log of every node it reaches."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import httpx
import pytest
import trio

from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.scheduler import run_virtual
from node.api.exposition import exposition
from node.api.middleware import ApiAccess, Middleware
from node.api.router import router
from node.dht.base import Consistency
from node.logs import formatter
from node.node import Node
from tests.sim.swarms import get, hints_delivered, met, over_seeds, put, running, swarm_of
from tests.unit.expositions import Read, read
from tests.unit.node.api.direct import Direct
from tests.until import until

ADDRESS = "ucxl://sim:tester@bzzz:nodes/*^/traced"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def metrics(node: Node) -> dict[str, Read]:
    assert node.meters is not None
    return read(exposition(node.meters).decode())


def requests(found: dict[str, Read], **labels: str) -> float:
    samples = found["bzzz_dht_requests_total"].samples.items()
    return sum(number for (_, have), number in samples if labels.items() <= dict(have).items())


def value(found: dict[str, Read], name: str, **labels: str) -> float:
    return found[name].samples[name, tuple(sorted(labels.items()))]


async def peers_freeze_and_thaw(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        node = swarm["n1"].running
        for number in range(4):
            await put(node, number)
        await get(node, 0)
        await get(node, 0, Consistency.SWARM)
        await hints_delivered(swarm)
        before = metrics(node)
        assert requests(before, backend="hybrid", operation="put", outcome="replicated") == 4
        assert requests(before, backend="hybrid", operation="get", outcome="local") >= 1
        assert requests(before, backend="hybrid", operation="get", outcome="swarm") == 1
        assert value(before, "bzzz_dht_fallbacks_total", operation="put") == 0
        assert value(before, "bzzz_breaker_state", state="closed") == 1
        assert value(before, "bzzz_swarm_members") == value(before, "bzzz_swarm_reachable") == 2
        assert value(before, "bzzz_writes_at_risk") == value(before, "bzzz_hints_owed") == 0

        others = [machine for machine in swarm.nodes.values() if machine.peer != node.peer_id]
        for machine in others:
            swarm.net.freeze(machine.peer)
        for number in range(5):
            await put(node, number)
        during = metrics(node)
        assert requests(during, backend="hybrid", operation="put", outcome="pending") == 5
        assert value(during, "bzzz_dht_fallbacks_total", operation="put") == 5
        assert value(during, "bzzz_dht_last_fallback_timestamp_seconds") == pytest.approx(
            node.now_ms() / 1000.0, abs=1.0
        )
        assert value(during, "bzzz_breaker_state", state="closed") == 0
        assert value(during, "bzzz_breaker_openings_total") == 1
        assert value(during, "bzzz_writes_at_risk") == 5
        assert value(during, "bzzz_hints_owed") == 10
        assert requests(during, backend="hybrid", operation="put", outcome="replicated") == 4

        for machine in others:
            swarm.net.thaw(machine.peer)
        await until(lambda: node.breaker is not None and node.breaker.is_closed, what="the breaker closes")
        await hints_delivered(swarm)
        after = metrics(node)
        assert value(after, "bzzz_breaker_recoveries_total") >= 1
        recovered = value(after, "bzzz_breaker_last_recovery_timestamp_seconds")
        assert recovered >= value(after, "bzzz_breaker_last_opening_timestamp_seconds")
        assert value(after, "bzzz_writes_at_risk") == value(after, "bzzz_hints_oldest_age_seconds") == 0


def test_fallbacks_breaker_changes_and_hints_are_counted_as_they_happen() -> None:
    over_seeds(peers_freeze_and_thaw)


# -- traces -----------------------------------------------------------------------------------------------------------


@contextmanager
def logged() -> Iterator[Callable[[], list[dict[str, object]]]]:
    """What is logged meanwhile, as a node writes it in JSON."""
    lines: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, root = Keeping(), logging.getLogger()
    handler.setFormatter(formatter("json"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lambda: [json.loads(line) for line in lines]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


async def asked(node: Node, method: str, **more: object) -> httpx.Response:
    app = Middleware(router(node), ApiAccess(is_loopback=True, token=None), now_ms=node.now_ms)
    async with httpx.AsyncClient(transport=Direct(app), base_url="http://127.0.0.1:8080") as http:
        return await http.request(method, "/v1/envelope", **more)  # type: ignore[arg-type]


async def a_call_is_traced(backend: str) -> None:
    async with swarm_of(1, 2, backend=backend, write_quorum=1, read_quorum=1) as swarm:
        one, two = swarm["n1"].running, swarm["n2"].running
        header = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        with logged() as lines:
            written = await asked(one, "PUT", params={"address": ADDRESS}, content=b"x", headers=header)
            assert written.status_code == 201, written.text
            await hints_delivered(swarm)
            of_put = _served(lines(), "Merge", one)
        assert of_put == [TRACE], "the holder's record has the trace of the write"
        given = written.headers["traceparent"].split("-")
        assert given[1] == TRACE
        assert given[2] != SPAN, "the node's own part of the call"

        with logged() as lines:
            params = {"address": ADDRESS, "consistency": "swarm"}
            found = await asked(two, "GET", params=params)
            of_get = _served(lines(), "GetHeads", two)
            access = [line for line in lines() if line.get("status") == 200]
        assert found.content == b"x"
        made = found.headers["traceparent"].split("-")[1]
        assert len(made) == 32
        assert made != TRACE, "a call without a trace gets its own"
        assert of_get == [made]
        assert [(line["trace"], line["path"], line["method"]) for line in access] == [(made, "/v1/envelope", "GET")]

        with logged() as lines:  # what no call asked for belongs to none
            await put(one, "untraced")
            await hints_delivered(swarm)
            assert not [line for line in lines() if "trace" in line]


def _served(lines: list[dict[str, object]], kind: str, asker: Node) -> list[object]:
    """The traces of the records in which another node says that it serves this one."""
    return [line.get("trace") for line in lines if line["event"] == f"serves a {kind} of {asker.peer_id}"]


@pytest.mark.parametrize("backend", ["hybrid", "real"])
def test_the_trace_of_a_call_is_in_the_log_of_every_node_it_touches(backend: str) -> None:
    run_virtual(1, partial(a_call_is_traced, backend), limit_seconds=600.0)


async def what_a_call_set_going_lives_on(seed: int) -> None:
    """A call misses its peers, which are parted from for it, dialled again, and live on: but not in its name."""
    async with swarm_of(seed, 3) as swarm:
        one = swarm["n1"].running
        others = [machine.peer for machine in swarm.nodes.values() if machine.peer != one.peer_id]
        for peer in others:
            swarm.net.freeze(peer)
        header = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        for number in range(5):
            params = {"address": f"{ADDRESS}{number}"}
            assert (await asked(one, "PUT", params=params, content=b"x", headers=header)).status_code == 202
            found = await asked(one, "GET", params={**params, "consistency": "swarm"}, headers=header)
            assert found.status_code == 503
        await until(lambda: not any(peer.is_connected for peer in one.peers()), what="they are given up")
        for peer in others:
            swarm.net.thaw(peer)
        await met(swarm)
        await hints_delivered(swarm)
        with logged() as lines:
            await put(one, "after")
            await get(one, "after", Consistency.SWARM)
            await trio.sleep(60.0)
            assert not [line for line in lines() if "trace" in line]
            for node in running(swarm):
                await asked(node, "GET", params={"address": ADDRESS})
            traces = {line.get("trace") for line in lines()} - {None}
            assert len(traces) == 3, "one each, of its own"
            assert TRACE not in traces


def test_a_trace_ends_with_its_call() -> None:
    over_seeds(what_a_call_set_going_lives_on)


async def many_at_once(swarm: VirtualSwarm) -> None:
    one = swarm["n1"].running
    headers = [{"traceparent": f"00-{number:032x}-{SPAN}-00"} for number in range(1, 41)]

    async def write(number: int) -> None:
        params = {"address": f"{ADDRESS}{number}"}
        answer = await asked(one, "PUT", params=params, content=b"x", headers=headers[number])
        assert answer.status_code in (201, 202)

    with logged() as lines:
        async with trio.open_nursery() as nursery:
            for number in range(len(headers)):
                nursery.start_soon(write, number)
        await hints_delivered(swarm)
        traces = [str(trace) for trace in _served(lines(), "Merge", one)]
    assert len(traces) < len(headers), "some of them went out together"
    assert sorted(",".join(traces).split(",")) == [f"{number:032x}" for number in range(1, 41)]


def test_writes_sent_in_one_message_keep_their_own_traces() -> None:
    async def program() -> None:
        async with swarm_of(1, 2) as swarm:
            await many_at_once(swarm)

    run_virtual(1, program, limit_seconds=600.0)
