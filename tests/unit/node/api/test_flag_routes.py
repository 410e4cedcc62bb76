"""`/v1/flags` and `/v1/audit`: changes over HTTP, refused in the shapes of the API."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from node import app
from node.api.middleware import ApiAccess, Middleware
from node.api.router import router
from node.config.settings import Settings
from node.environment import Environment
from node.node import Node
from node.store.memory.store import MemoryStore
from protocols.audit_log import check
from protocols.keys import PrivateKey
from tests.unit.node.api.direct import Direct

KEY = PrivateKey.from_seed(b"\x01" * 32)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    world = Environment(
        key=KEY, network=None, store=MemoryStore(log_id="ab" * 8), now_ms=lambda: 1_700_000_000_000,
        chance=random.Random(0).random,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        yield await nursery.start(app.run, world, Settings(backend="mock", name="n1"))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(node: Node, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    app = Middleware(router(node), ApiAccess(is_loopback=True, token=token), now_ms=node.now_ms)
    async with httpx.AsyncClient(transport=Direct(app), base_url="http://127.0.0.1:8080") as http:
        yield http


def data(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["response"]["data"]


async def test_flags_are_shown_changed_and_shown_again(node: Node) -> None:
    async with client(node) as http:
        before = data(await http.get("/v1/flags"))
        assert (before["in_force"], before["flags"]["backend"], before["override"]) == ("mock", "mock", None)
        assert before["origins"]["deadline_ms"] == "default"
        changed = data(
            await http.patch("/v1/flags", json={"deadline_ms": "250ms", "reason": "slow disks", "author": "ada"})
        )
        assert changed["flags"]["deadline_ms"] == 250
        assert changed == data(await http.get("/v1/flags"))
        assert changed["origins"]["deadline_ms"] == "run time, by ada"
        forced = data(await http.patch("/v1/flags", json={"override": "mock", "reason": "x", "expires_in": "1h"}))
        assert forced["override"]["expires_at"] == "2023-11-14T23:13:20.000Z"
        assert forced["override"]["author"].startswith("api")
        assert (await http.get("/health")).json()["response"]["data"]["status"] == "degraded"
        assert data(await http.patch("/v1/flags", json={"override": None}))["override"] is None
        assert (await http.get("/health")).json()["response"]["data"]["status"] == "healthy"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "the body is not a JSON object"),
        (b"[]", "it is not an object"),
        (b'{"backend": "mock"', "line 1"),
        (b"\xff", "not UTF-8"),
        (b'{"deadline_ms": NaN}', "NaN is not a JSON number"),
        (b'{"backend": "mock", "backend": "real"}', "'backend' appears twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"deadline_ms": ' + b"9" * 5000 + b"}", "the body is not a JSON object"),
        (b'{"backend": "hybrid"}', "it has no host"),
        (b'{"override": "open", "reason": "x"}', "it has no host"),
        (b'{"override": "mock"}', "needs a reason"),
        (b'{"deadline_ms": 5, "bakend": "mock"}', "did you mean backend?"),
        (b'{"reason": "\\ud800", "deadline_ms": 5}', "one line"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_whole(node: Node, body: bytes, part: str) -> None:
    async with client(node) as http:
        response = await http.patch("/v1/flags", content=body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["code"] == "UCXL-400-INVALID_PAYLOAD"
        assert part in error["message"]
        assert data(await http.get("/v1/flags"))["revision"] == 0


async def test_the_audit_log_comes_as_it_was_written(node: Node) -> None:
    async with client(node) as http:
        for number in range(3):
            data(await http.patch("/v1/flags", json={"deadline_ms": 10 + number, "reason": f"ä{number}"}))
        log = data(await http.get("/v1/audit"))
        verdict = check([line.encode() for line in log["lines"]], node=KEY.peer_id)
        assert (verdict.broken, verdict.good, verdict.head) == (None, log["entries"], log["head"])
        assert json.loads(log["lines"][-1])["reason"] == "ä2"
        page = data(await http.get("/v1/audit", params={"after": 1, "limit": 2}))
        assert page["lines"] == log["lines"][1:3]
        assert (await http.get("/v1/audit", params={"last": 1})).status_code == 400


async def test_flags_and_the_audit_log_need_the_token(node: Node) -> None:
    async with client(node, token="s3cret") as http:
        assert (await http.patch("/v1/flags", json={"deadline_ms": 5})).status_code == 401
        assert (await http.get("/v1/flags")).status_code == 401
        assert (await http.get("/v1/audit")).status_code == 401
        assert node.flags.revision == 0
