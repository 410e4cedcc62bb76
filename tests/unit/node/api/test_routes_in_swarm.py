"""The routes on one of three nodes that have met, in virtual time."""

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.scheduler import run_virtual
from node.config.settings import Settings
from protocols.ucxl import parse
from tests.unit.node.api.served import (
    ADDRESS,
    BARE,
    ENVELOPE,
    Api,
    served,
)
from tests.until import until

NAMES = ("n1", "n2", "n3")


def in_a_swarm(story: Callable[[VirtualSwarm, Api], Awaitable[None]], **settings: Any) -> None:
    """Run a story with the API of the first of three nodes that have met."""

    async def run() -> None:
        async with VirtualSwarm.open(1, NAMES, settings=Settings(**settings)) as swarm:
            n1 = swarm["n1"].running
            await until(lambda: sum(peer.is_connected for peer in n1.peers()) == 2)
            async with served(n1) as api:
                await story(swarm, api)

    run_virtual(1, run)


def cut(swarm: VirtualSwarm, names: Iterable[str] = ("n2", "n3")) -> None:
    swarm.net.partition(swarm.peers("n1"), swarm.peers(*names))


def test_a_write_that_the_quorum_has_is_201_and_one_that_it_has_not_is_202() -> None:
    async def story(swarm: VirtualSwarm, api: Api) -> None:
        response = await api("PUT", ENVELOPE, params={"address": ADDRESS}, content=b"1")
        assert response.status_code == 201
        receipt = response.json()["response"]["data"]
        assert receipt["replicated"] is True
        assert receipt["backend"] == "real"
        assert (await api.get(consistency="swarm")).headers["ucxl-source"] == "swarm"
        cut(swarm)
        response = await api("PUT", ENVELOPE, params={"address": ADDRESS}, content=b"2")
        assert response.status_code == 202
        assert response.json()["response"]["data"]["pending"] is True
        pending = (await api("GET", "/v1/pending", params={"state": "owed"})).json()["response"]["data"]
        assert pending["count"] == 2
        assert {hint["address"] for hint in pending["hints"]} == {ADDRESS}

    in_a_swarm(story)


def test_refused_hints_are_delivered_after_a_retry_and_the_audit_log_names_the_caller() -> None:
    async def story(swarm: VirtualSwarm, api: Api) -> None:
        n1 = swarm["n1"].running
        cut(swarm)
        receipt = await api.put(b"1")
        await trio.sleep(30)  # until no delivery of the write is in progress
        for peer in swarm.peers("n2", "n3"):
            await n1.store.quarantine_hint(peer, receipt["sequence"], refusal="no")
        swarm.net.heal()
        await trio.sleep(30)
        refused = (await api("GET", "/v1/pending", params={"state": "refused"})).json()["response"]["data"]
        assert [hint["refusal"] for hint in refused["hints"]] == ["no", "no"], "it is not tried again by itself"

        body = {"reason": "n2 and n3 are repaired", "author": "ada"}
        response = await api("POST", "/v1/pending/retry", json=body)
        assert response.status_code == 200
        answer = response.json()["response"]
        assert answer["message"] == "2 hints are due again"
        assert {**answer["data"], "oldest_age_ms": 0} == {"retried": 2, "count": 2, "oldest_age_ms": 0, "refused": 0}
        await until(lambda: not n1.store.pending().count, seconds=10)
        for name in ("n2", "n3"):
            assert [head.digest for head in await swarm[name].running.store.heads(parse(ADDRESS).key)]

        again = (await api("POST", "/v1/pending/retry")).json()["response"]["data"]
        assert again == {"retried": 0, "count": 0, "oldest_age_ms": None, "refused": 0}
        lines = [json.loads(line) for line in await n1.audit.lines()]
        entries = [(e["author"], e["reason"], e["details"]) for e in lines if e["act"] == "hints.retried"]
        assert entries == [("ada", "n2 and n3 are repaired", {"hints": 2})], "a retry of nothing is no act"

    in_a_swarm(story)


def test_waiting_for_replication_ends_when_it_is_there_or_when_time_is_over() -> None:
    async def story(swarm: VirtualSwarm, api: Api) -> None:
        cut(swarm)
        started = trio.current_time()
        query = {"address": ADDRESS, "replicated": "true", "timeout_ms": "3000"}
        response = await api("PUT", ENVELOPE, params=query, content=b"1")
        assert response.status_code == 202
        assert 2.9 < trio.current_time() - started < 3.5
        assert response.json()["response"]["data"]["elapsed_ms"] > 2_900
        digest = response.json()["response"]["data"]["digest"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heal_after, swarm, 5.0)
            query = {"digest": digest, "replicated": "true", "timeout_ms": "60000"}
            receipt = (await api("GET", "/v1/receipt", params=query)).json()["response"]["data"]
            assert receipt["replicated"] is True
            assert trio.current_time() - started < 60

    in_a_swarm(story)


async def _heal_after(swarm: VirtualSwarm, seconds: float) -> None:
    await trio.sleep(seconds)
    swarm.net.heal()


def test_reading_alone_is_marked_and_asking_the_swarm_in_vain_is_503() -> None:
    async def story(swarm: VirtualSwarm, api: Api) -> None:
        await api.put(b"1")
        cut(swarm)
        await trio.sleep(30)
        response = await api.get()
        assert response.content == b"1"
        assert response.headers["ucxl-degraded"] == "true"
        assert response.headers["ucxl-reason"]
        error = await api.refused(503, "GET", ENVELOPE, params={"address": ADDRESS, "consistency": "swarm"})
        assert error["retryable"] is True
        error = await api.refused(503, "GET", ENVELOPE, params={"address": f"{BARE}/*^/never"})
        assert error["code"] == "UCXL-503-UNAVAILABLE"
        health = (await api("GET", "/health")).json()["response"]["data"]
        assert health["status"] == "degraded"

    in_a_swarm(story)


def test_the_real_backend_alone_refuses_or_says_that_it_may_have_happened() -> None:
    async def story(swarm: VirtualSwarm, api: Api) -> None:
        cut(swarm)
        response = await api("PUT", ENVELOPE, params={"address": ADDRESS}, content=b"1")
        assert response.status_code in (503, 504)
        error = response.json()["error"]
        assert error["retryable"] is True
        if response.status_code == 504:
            assert len(error["details"]["digest"]) == 64
        assert (await api.get(consistency="local")).status_code in (404, 503)

    in_a_swarm(story, backend="real")


def test_peers_are_listed_with_their_state() -> None:
    async def story(swarm: VirtualSwarm, api: Api) -> None:
        peers = (await api("GET", "/v1/peers")).json()["response"]["data"]["peers"]
        assert {peer["name"] for peer in peers} == {"n2", "n3"}
        assert all(peer["connected"] and not peer["suspect"] for peer in peers)
        assert {peer["peer_id"] for peer in peers} == set(swarm.peers("n2", "n3"))

    in_a_swarm(story)


def test_a_member_that_is_away_is_forgotten_and_its_hints_are_named_first() -> None:
    async def story(swarm: VirtualSwarm, api: Api) -> None:
        gone = swarm.peers("n3")[0]
        forget = "/v1/peers/forget"
        error = await api.refused(409, "POST", forget, json={"peer_id": gone})
        assert "connected" in error["message"]
        for body in ({}, {"peer_id": 3}, {"peer_id": gone, "name": "n3"}):
            await api.refused(400, "POST", forget, json=body)
        await api.refused(404, "POST", forget, json={"peer_id": "12D3KooWnobody"})
        await swarm["n3"].crash()
        await trio.sleep(30)
        await api.put(b"1")
        absent = {"address": f"{BARE}/*^/absent"}
        await api.refused(503, "GET", ENVELOPE, params=absent)
        answer = (await api("POST", forget, json={"peer_id": gone, "author": "ada"})).json()["response"]
        assert answer["message"] == (
            "n3 is forgotten; 1 version that it did not have goes to the members that hold in its place"
        )
        assert (answer["data"]["owed"], answer["data"]["forgotten"]["peer_id"]) == (1, gone)
        assert (await api.put(b"2"))["wanted"] == 1
        await api.refused(404, "GET", ENVELOPE, params=absent)

    in_a_swarm(story)
