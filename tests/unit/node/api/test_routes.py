"""The routes of the HTTP API over a whole node in memory: their answers and their errors.

No socket and no server: requests go straight into the middleware. `test_server.py` tests the server.
"""

import json
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.scheduler import run_virtual
from node import app
from node.api.content import FoundContent
from node.api.headers import tags
from node.api.media import DEFAULT_TYPE, ENVELOPE_TYPE, JSON_TYPE, preferred
from node.api.middleware import ApiAccess, Middleware, RequestLimits, retry_after
from node.api.router import router
from node.api.routes import RESOURCES
from node.config.settings import Settings
from node.dht.base import Answer, Backend, Provenance
from node.node import Node
from node.store.log import Incoming, Origin
from node.store.memory.store import MemoryStore
from protocols import clock
from protocols.envelope import ENCODED_BYTES_MAX, decode, seal
from protocols.errors import ClockAhead, InvalidPayload, NotFound, Unavailable
from protocols.keys import PrivateKey
from protocols.ucxl import parse

KEY = PrivateKey.from_seed(b"\x01" * 32)
OTHER = PrivateKey.from_seed(b"\x02" * 32)
ADDRESS = "ucxl://agent:role@project:task/*^/notes/a.md"
BARE = "ucxl://agent:role@project:task"
ENVELOPE = "/v1/envelope"
LOOPBACK = ApiAccess(is_loopback=True, token=None)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Api:
    """A client of one node, which checks the shape of every answer."""

    def __init__(self, node: Node, client: httpx.AsyncClient) -> None:
        self.node = node
        self.client = client

    async def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        response = await self.client.request(method, path, **more)
        assert response.headers["x-request-id"]
        if (
            method != "HEAD"
            and response.headers.get("content-type") == JSON_TYPE
            and path.startswith(("/v1", "/health"))
        ):
            self._check_shape(response)
        return response

    def _check_shape(self, response: httpx.Response) -> None:
        try:
            payload = response.json()
        except ValueError:
            return  # content, served as it was written
        if "error" in payload:
            body = payload["error"]
            keys = {"code", "message", "details", "source", "path", "request_id", "timestamp", "cause", "retryable"}
        elif "response" in payload:
            body = payload["response"]
            keys = {"code", "message", "data", "details", "request_id", "timestamp"}
        else:
            return
        assert set(body) == keys
        assert body["code"].startswith(f"UCXL-{response.status_code}-")
        assert body["message"]
        assert body["request_id"] == response.headers["x-request-id"]
        assert body["timestamp"].endswith("Z")

    async def put(self, content: bytes = b"hello", address: str = ADDRESS, **more: Any) -> dict[str, Any]:
        response = await self("PUT", ENVELOPE, params={"address": address}, content=content, **more)
        assert response.status_code in (201, 202), response.text
        data: dict[str, Any] = response.json()["response"]["data"]
        return data

    async def get(self, address: str = ADDRESS, headers: Any = None, **query: Any) -> httpx.Response:
        return await self("GET", ENVELOPE, params={"address": address, **query}, headers=headers)

    async def refused(self, status: int, method: str, path: str, **more: Any) -> dict[str, Any]:
        response = await self(method, path, **more)
        assert response.status_code == status, response.text
        error: dict[str, Any] = response.json()["error"]
        return error


@asynccontextmanager
async def served(node: Node, access: ApiAccess = LOOPBACK, limits: RequestLimits | None = None) -> AsyncIterator[Api]:
    app = Middleware(router(node), access, now_ms=node.now_ms, limits=limits)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield Api(node, client)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """A whole node on the mock backend, in memory."""
    world = app.Environment(
        key=KEY, network=None, store=MemoryStore(log_id="ab" * 8), now_ms=now_ms, chance=random.Random(0).random
    )
    async with trio.open_nursery() as nursery:
        yield await nursery.start(app.run, world, Settings(backend="mock", name="n1"))
        nursery.cancel_scope.cancel()


@pytest.fixture
async def api(node: Node) -> AsyncIterator[Api]:
    async with served(node) as client:
        yield client


# -- writing and reading ----------------------------------------------------------------------------------------------


async def test_what_was_put_is_got_byte_for_byte_with_its_headers(api: Api) -> None:
    content = bytes(range(256))
    receipt = await api.put(content, headers={"content-type": "image/png"})
    response = await api.get()
    assert response.status_code == 200
    assert response.content == content
    assert response.headers["content-type"] == "image/png"
    assert response.headers["etag"] == f'"{receipt["digest"]}"'
    assert response.headers["ucxl-version"] == receipt["version"]
    assert response.headers["ucxl-author"] == KEY.peer_id
    assert response.headers["ucxl-source"] == "local"
    assert response.headers["ucxl-age-ms"] == "0"
    assert response.headers["ucxl-replicas"] == "1"
    assert response.headers["ucxl-siblings"] == "0"
    assert response.headers["ucxl-degraded"] == "false"


async def test_a_receipt_has_every_field(api: Api) -> None:
    first = await api.put(b"1")
    second = await api.put(b"2")
    assert first == {
        "backend": "mock", "durability": "local", "replicated": False, "pending": False, "acknowledged": 0, "wanted": 0,
        "quorum": 0, "elapsed_ms": first["elapsed_ms"], "log": "ab" * 8, "sequence": 1, "address": ADDRESS,
        "version": first["version"], "written_at": first["written_at"], "digest": first["digest"], "parents": [],
        "reissued_as": None,
    }  # fmt: skip
    assert second["parents"] == [first["digest"]]
    assert int(second["version"]) > int(first["version"]) > 2**53
    assert second["sequence"] == 2


async def test_an_address_with_a_plus_and_raw_signs_arrives_as_it_was_written(api: Api) -> None:
    await api.put(b"x", BARE)
    raw = f"{ENVELOPE}?address={BARE}/2099-01-01T00:00:00+02:00"
    assert (await api("GET", raw)).content == b"x"
    await api.put(b"y", f"{BARE}/*^/a%20b")
    assert (await api("GET", f"{ENVELOPE}?address={quote(f'{BARE}/*^/a%20b')}")).content == b"y"


async def test_meta_goes_in_and_out_as_headers(api: Api) -> None:
    headers = [("ucxl-meta-Lang", "de"), ("UCXL-Meta-note", "bär".encode())]
    await api.put(headers=headers)
    response = await api.get()
    raw = dict(response.headers.raw)
    assert raw[b"ucxl-meta-lang"] == b"de"
    assert raw[b"ucxl-meta-note"] == "bär".encode()
    assert (await api.get(headers={"accept": JSON_TYPE})).json()["response"]["data"]["envelope"]["meta"] == {
        "lang": "de", "note": "bär"
    }  # fmt: skip


async def test_json_has_the_envelope_its_provenance_and_its_siblings(api: Api) -> None:
    receipt = await api.put("grüße".encode(), headers={"content-type": "text/plain"})
    response = await api.get(headers={"accept": JSON_TYPE})
    data = response.json()["response"]["data"]
    assert data["envelope"]["content"] == "grüße"
    assert data["envelope"]["content_encoding"] == "utf-8"
    assert data["envelope"]["digest"] == receipt["digest"]
    assert data["envelope"]["format"] == [1, 0]
    assert data["provenance"] == {
        "backend": "mock", "source": "local", "age_ms": 0.0, "replicas": 1, "siblings": 0, "degraded": False,
        "reason": "",
    }  # fmt: skip
    assert data["siblings"] == []
    await api.put(b"\xff\xfe")
    envelope = (await api.get(headers={"accept": JSON_TYPE})).json()["response"]["data"]["envelope"]
    assert (envelope["content"], envelope["content_encoding"]) == ("//4=", "base64")


async def test_a_signed_envelope_goes_out_and_in_unchanged(api: Api) -> None:
    sealed = seal(
        OTHER, address=ADDRESS, content=b"signed elsewhere", content_type="text/plain", parents=(),
        version=clock.version(now_ms(), 0), meta={"Case": "kept", "line": "a\nb"},
    )  # fmt: skip
    response = await api("PUT", ENVELOPE, content=sealed.encoded, headers={"content-type": ENVELOPE_TYPE})
    assert response.status_code == 202
    assert response.json()["response"]["data"]["digest"] == sealed.digest.hex()
    got = await api.get(headers={"accept": ENVELOPE_TYPE})
    assert got.headers["content-type"] == ENVELOPE_TYPE
    assert decode(got.content) == sealed
    plain = await api.get()
    assert plain.headers["ucxl-author"] == OTHER.peer_id
    assert plain.headers["ucxl-meta-case"] == "kept"
    assert plain.headers["ucxl-omitted-meta"] == "1", "a line break cannot stand in a header"


async def test_a_signed_envelope_that_is_wrong_is_refused(api: Api) -> None:
    sealed = seal(
        OTHER, address=ADDRESS, content=b"x", content_type="text/plain", version=clock.version(now_ms(), 0), parents=()
    )
    headers = {"content-type": ENVELOPE_TYPE}
    forged = sealed.encoded[:-1] + bytes([sealed.encoded[-1] ^ 1])
    ahead = seal(
        OTHER, address=ADDRESS, content=b"", content_type="text/plain", version=clock.version(now_ms() + 90_000, 0),
        parents=(),
    )  # fmt: skip
    orphan = seal(
        OTHER, address=ADDRESS, content=b"", content_type="text/plain", version=clock.version(now_ms(), 0),
        parents=(b"\x07" * 32,),
    )  # fmt: skip
    for body, status, part in (
        (b"garbage", 400, ""),
        (b"", 400, ""),
        (forged, 422, "signature"),
        (orphan.encoded, 422, "nobody knows"),
        (sealed.encoded + b"\x00", 400, ""),
    ):
        error = await api.refused(status, "PUT", ENVELOPE, content=body, headers=headers)
        assert part in error["message"]
    error = await api.refused(422, "PUT", ENVELOPE, content=ahead.encoded, headers=headers)
    assert error["retryable"] is True
    assert error["details"]["reason"] == "clock_ahead"
    elsewhere = {"address": f"{BARE}/*^/elsewhere"}
    await api.refused(400, "PUT", ENVELOPE, params=elsewhere, content=sealed.encoded, headers=headers)
    contradicting = {**headers, "ucxl-meta-x": "y"}
    await api.refused(400, "PUT", ENVELOPE, content=sealed.encoded, headers=contradicting)
    assert (await api.get()).status_code == 404, "nothing of it was kept"


async def test_post_is_refused_where_something_is_and_not_after_a_delete(api: Api) -> None:
    query = {"address": ADDRESS}
    assert (await api("POST", ENVELOPE, params=query, content=b"1")).status_code == 202
    error = await api.refused(409, "POST", ENVELOPE, params=query, content=b"2")
    assert error["details"]["heads"]
    assert (await api.get()).content == b"1"
    await api("DELETE", ENVELOPE, params=query)
    assert (await api("POST", ENVELOPE, params=query, content=b"3")).status_code == 202
    assert (await api.get()).content == b"3"


async def test_put_can_be_made_to_create_only_by_the_standard_header(api: Api) -> None:
    create = {"if-none-match": "*"}
    await api.put(headers=create)
    await api.refused(409, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"", headers=create)


async def test_a_tombstone_reads_as_404_with_deleted_and_its_history_stays(api: Api) -> None:
    first = await api.put(b"1")
    response = await api("DELETE", ENVELOPE, params={"address": ADDRESS})
    assert response.status_code == 202
    tombstone = response.json()["response"]["data"]["digest"]
    error = await api.refused(404, "GET", ENVELOPE, params={"address": ADDRESS})
    assert error["details"]["deleted"] is True
    assert (error["details"]["backend"], error["details"]["source"], error["details"]["degraded"]) == (
        "mock",
        "local",
        False,
    )
    assert error["details"]["digest"] == tombstone
    assert (await api.get(f"{BARE}/~~1/notes/a.md")).content == b"1"
    assert (await api.get(digest=first["digest"])).content == b"1"
    history = (await api("GET", "/v1/history", params={"address": ADDRESS})).json()["response"]["data"]
    assert [(one["deleted"], one["head"]) for one in history["versions"]] == [(False, False), (True, True)]


async def test_every_temporal_form_reads_its_version(api: Api) -> None:
    receipts = [await api.put(b"%d" % number) for number in (1, 2, 3)]
    for part, content in (("*^", b"3"), ("*~", b"1"), ("*~2", b"2"), ("~~", b"2"), ("~~2", b"1"), ("^^1", b"2")):
        response = await api.get(f"{BARE}/{part}/notes/a.md")
        assert response.content == content, part
    assert (await api.get(f"{BARE}/{receipts[2]['written_at']}/notes/a.md")).content == b"3"
    error = await api.refused(404, "GET", ENVELOPE, params={"address": f"{BARE}/~~9/notes/a.md"})
    assert error["code"] == "UCXL-404-TEMPORAL_OUT_OF_RANGE"
    assert error["details"]["versions"] == 3


async def test_only_the_head_can_be_written(api: Api) -> None:
    for method in ("PUT", "POST", "DELETE"):
        error = await api.refused(400, method, ENVELOPE, params={"address": f"{BARE}/~~1/notes/a.md"})
        assert error["code"] == "UCXL-400-TEMPORAL_INVALID"
        assert error["details"]["expected"] == ADDRESS


async def test_if_match_writes_on_the_head_it_names_and_on_no_other(api: Api) -> None:
    one = await api.put(b"1")
    two = await api.put(b"2", headers={"if-match": f'"{one["digest"]}"'})
    error = await api.refused(
        409, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"3", headers={"if-match": f'"{one["digest"]}"'}
    )
    assert error["details"]["heads"] == [two["digest"]]
    many = f'"{one["digest"]}", W/"{two["digest"]}"'
    await api.put(b"3", headers={"if-match": many})
    await api.put(b"4", headers={"if-match": "*"})
    nowhere = {"address": f"{BARE}/*^/nowhere"}
    await api.refused(409, "PUT", ENVELOPE, params=nowhere, content=b"", headers={"if-match": "*"})
    await api.refused(409, "DELETE", ENVELOPE, params={"address": ADDRESS}, headers={"if-match": one["digest"]})
    assert (await api.get()).content == b"4"


async def test_named_parents_make_siblings_and_a_read_counts_them(api: Api) -> None:
    one = await api.put(b"1")
    two = await api.put(b"2", headers={"ucxl-parents": one["digest"]})
    three = await api.put(b"3", headers={"ucxl-parents": f'"{one["digest"]}"'})
    response = await api.get()
    assert response.content == b"3"
    assert response.headers["ucxl-siblings"] == "1"
    data = (await api.get(headers={"accept": JSON_TYPE})).json()["response"]["data"]
    assert [sibling["digest"] for sibling in data["siblings"]] == [two["digest"]]
    merged = await api.put(b"4", headers={"ucxl-parents": f"{two['digest']}, {three['digest']}"})
    assert merged["parents"] == sorted([two["digest"], three["digest"]])
    assert (await api.get()).headers["ucxl-siblings"] == "0"
    error = await api.refused(
        422, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"", headers={"ucxl-parents": "07" * 32}
    )
    assert "07" * 32 in error["message"]


async def test_parents_that_are_empty_write_on_top_of_nothing(api: Api) -> None:
    await api.put(b"1")
    assert (await api.put(b"2", headers={"ucxl-parents": ""}))["parents"] == []


async def test_an_idempotency_key_writes_once(api: Api) -> None:
    key = {"idempotency-key": "a-key"}
    first = await api.put(b"1", headers=key)
    again = await api.put(b"1", headers=key)
    assert again["digest"] == first["digest"]
    assert again["sequence"] == first["sequence"] == api.node.store.last_sequence
    await api.refused(409, "PUT", ENVELOPE, params={"address": f"{BARE}/*^/other"}, content=b"1", headers=key)
    await api.refused(409, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"2", headers=key)
    await api.refused(409, "DELETE", ENVELOPE, params={"address": ADDRESS}, headers=key)
    assert api.node.store.last_sequence == first["sequence"]
    await api.refused(
        400, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"1", headers={"idempotency-key": "a b"}
    )


async def test_waiting_for_replication_on_the_mock_backend_answers_at_once(api: Api) -> None:
    with trio.fail_after(5):
        response = await api("PUT", ENVELOPE, params={"address": ADDRESS, "replicated": "true"}, content=b"x")
    assert response.status_code == 202
    assert "asks no other node" in response.json()["response"]["message"]


async def test_a_receipt_can_be_asked_for_again_in_both_ways(api: Api) -> None:
    written = await api.put()
    for query in ({"digest": written["digest"]}, {"log": written["log"], "sequence": str(written["sequence"])}):
        response = await api("GET", "/v1/receipt", params=query)
        again = response.json()["response"]["data"]
        assert {**again, "elapsed_ms": 0} == {**written, "elapsed_ms": 0}
    await api.refused(404, "GET", "/v1/receipt", params={"digest": "00" * 32})
    await api.refused(404, "GET", "/v1/receipt", params={"log": written["log"], "sequence": "99"})
    await api.refused(404, "GET", "/v1/receipt", params={"log": "other", "sequence": "1"})
    for query in ({}, {"sequence": "1"}, {"log": "x"}, {"digest": written["digest"], "log": "x", "sequence": "1"}):
        await api.refused(400, "GET", "/v1/receipt", params=query)


async def test_history_comes_in_pages(api: Api) -> None:
    digests = [(await api.put(b"%d" % number))["digest"] for number in range(5)]

    async def page(**query: int) -> dict[str, Any]:
        response = await api("GET", "/v1/history", params={"address": ADDRESS, **query})
        data: dict[str, Any] = response.json()["response"]["data"]
        return data

    whole = await page()
    assert [one["digest"] for one in whole["versions"]] == digests
    assert (whole["total"], whole["complete"]) == (5, True)
    middle = await page(after=1, limit=2)
    assert [one["digest"] for one in middle["versions"]] == digests[1:3]
    assert middle["total"] == 5
    await api.refused(404, "GET", "/v1/history", params={"address": f"{BARE}/*^/nowhere"})


# -- caching and forms ------------------------------------------------------------------------------------------------


async def test_a_version_that_the_client_has_is_not_sent_again(api: Api) -> None:
    digest = (await api.put())["digest"]
    for value in (f'"{digest}"', f'W/"{digest}"', "*", f'"x", "{digest}"'):
        response = await api.get(headers={"if-none-match": value})
        assert response.status_code == 304, value
        assert response.content == b""
        assert response.headers["etag"] == f'"{digest}"'
    assert (await api.get(headers={"if-none-match": '"' + "0" * 64 + '"'})).status_code == 200


async def test_head_answers_as_get_does_without_the_body(api: Api) -> None:
    await api.put(b"12345")
    response = await api("HEAD", ENVELOPE, params={"address": ADDRESS})
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == "5"
    missing = await api("HEAD", ENVELOPE, params={"address": f"{BARE}/*^/nowhere"})
    assert missing.status_code == 404
    assert missing.content == b""


async def test_every_answer_says_how_long_the_node_took(api: Api) -> None:
    await api.put(b"x")
    for reply in (await api.get(), await api("GET", "/v1/nothing")):
        assert re.fullmatch(r"node;dur=[0-9]+\.[0-9]{3}", reply.headers["server-timing"])


async def test_content_is_served_so_that_a_browser_runs_nothing_of_it(api: Api) -> None:
    await api.put(b"<script>alert(1)</script>", headers={"content-type": "text/html"})
    headers = (await api.get()).headers
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_a_content_type_that_would_break_the_answer_is_served_as_bytes(api: Api) -> None:
    sealed = seal(
        OTHER, address=ADDRESS, content=b"x", content_type="no type at all; \"", version=clock.version(now_ms(), 0),
        parents=(),
    )  # fmt: skip
    await api("PUT", ENVELOPE, content=sealed.encoded, headers={"content-type": ENVELOPE_TYPE})
    assert (await api.get()).headers["content-type"] == DEFAULT_TYPE


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, DEFAULT_TYPE),
        ("", DEFAULT_TYPE),
        ("*/*", DEFAULT_TYPE),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", DEFAULT_TYPE),
        ("application/json", JSON_TYPE),
        ("application/json, text/plain, */*", JSON_TYPE),
        ("Application/JSON; charset=utf-8", JSON_TYPE),
        ("application/json;q=0.5, */*", DEFAULT_TYPE),
        ("text/plain;q=0.5, application/json;q=0.9", JSON_TYPE),
        ("application/json;q=0", DEFAULT_TYPE),
        ("application/json;q=nonsense", DEFAULT_TYPE),
        (ENVELOPE_TYPE, ENVELOPE_TYPE),
        (f"application/json;q=0.3, {ENVELOPE_TYPE};q=0.4", ENVELOPE_TYPE),
        ("image/*", DEFAULT_TYPE),
    ],
)
def test_the_form_is_what_accept_asks_for_by_name(accept: str | None, form: str) -> None:
    assert preferred(accept) == form


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "address"),
        ({"address": ""}, "address"),
        ({"address": "http://x"}, "scheme"),
        ({"address": "ucxl://a:b@c:d/notes.md"}, "temporal"),
        ({"address": "ucxl://any:b@c:d"}, "address"),
        ({"address": ADDRESS, "consistency": "strong"}, "consistency"),
        ({"address": ADDRESS, "digest": "xyz"}, "digest"),
        ({"address": ADDRESS, "timeout_ms": "0"}, "timeout_ms"),
        ({"address": ADDRESS, "timeout_ms": "60001"}, "timeout_ms"),
        ({"address": ADDRESS, "timeout_ms": "-1"}, "timeout_ms"),
        ({"address": ADDRESS, "timeout_ms": "1e3"}, "timeout_ms"),
        ({"address": ADDRESS, "timeout_ms": "٣"}, "timeout_ms"),
        ({"addres": ADDRESS}, "addres"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_by_name(api: Api, query: dict[str, str], field: str) -> None:
    error = await api.refused(400, "GET", ENVELOPE, params=query)
    assert error["details"]["field"] == field
    assert error["details"]["expected"]
    assert error["retryable"] is False


async def test_the_nearest_parameter_is_named_and_doubles_are_refused(api: Api) -> None:
    error = await api.refused(400, "GET", f"{ENVELOPE}?adress=x")
    assert "did you mean address?" in error["message"]
    error = await api.refused(400, "GET", f"{ENVELOPE}?address=x&address=y")
    assert "more than once" in error["message"]
    for path, methods in RESOURCES.items():
        for method in methods:
            await api.refused(400, method, f"{path}?nonsense=1")


async def test_bad_utf8_is_refused_wherever_it_stands(api: Api) -> None:
    for target in (f"{ENVELOPE}?address=%ff%fe", f"{ENVELOPE}?%c3%28=x"):
        error = await api.refused(400, "GET", target)
        assert "UTF-8" in error["message"]
    for name in ("idempotency-key", "ucxl-parents", "if-match", "content-type", "ucxl-meta-x"):
        headers = [(name.encode(), b"\xff\xfe")]
        error = await api.refused(400, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"", headers=headers)
        assert "UTF-8" in error["message"]
    await api.refused(404, "GET", "/v1/%ff%fe")


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b"NaN"),
        ("application/ld+json; charset=utf-8", b"'x'"),
        ("application/json", b"[" * 500_000),
        ("text/plain", b"\xff\xfe"),
        ("text/markdown; charset=UTF-8", b"\xc3("),
        ("text/plain; charset=us-ascii", "ä".encode()),
    ],
)
async def test_a_body_that_is_not_what_its_type_says_is_refused(api: Api, media_type: str, body: bytes) -> None:
    headers = {"content-type": media_type}
    error = await api.refused(400, "PUT", ENVELOPE, params={"address": ADDRESS}, content=body, headers=headers)
    assert media_type in error["message"]
    assert (await api.get()).status_code == 404


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", b'{"a": [1, 2.5, 9' + b"9" * 5000 + b"]}"),
        ("text/plain; charset=latin-1", b"\xff"),
        ("text/plain; charset=punycode", b"\xff"),
        ("text/plain; charset=no-such", b"\xff"),
        ("application/octet-stream", b"\xff"),
        ('text/plain; title="a b"', b"x"),
        ("text/plain", b""),
    ],
)
async def test_a_body_that_may_be_what_its_type_says_is_taken(api: Api, media_type: str, body: bytes) -> None:
    await api.put(body, headers={"content-type": media_type})
    assert (await api.get()).headers["content-type"] == media_type


async def test_a_content_type_that_is_none_is_refused(api: Api) -> None:
    headers = {"content-type": "text"}
    error = await api.refused(400, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"", headers=headers)
    assert error["details"]["field"] == "Content-Type"


@pytest.mark.parametrize(("announced", "bytes_read_max"), [(10**12, 0), (None, ENCODED_BYTES_MAX + 65536)])
async def test_what_is_too_large_is_refused_before_it_is_read(announced: int | None, bytes_read_max: int) -> None:
    read, answered = 0, []

    async def endless() -> Any:
        nonlocal read
        read += 65536
        return {"type": "http.request", "body": b"x" * 65536, "more_body": True}

    async def send(message: Any) -> None:
        answered.append(message)

    headers = [(b"content-length", b"%d" % announced)] if announced else []
    scope = {"type": "http", "method": "PUT", "path": ENVELOPE, "query_string": b"", "headers": headers}
    await _API_OVER_NOTHING(scope, endless, send)
    assert answered[0]["status"] == 413
    assert json.loads(answered[1]["body"])["error"]["details"]["size_bytes_max"] == ENCODED_BYTES_MAX
    assert read <= bytes_read_max


async def test_content_that_leaves_no_room_for_the_rest_of_its_envelope_is_refused(api: Api) -> None:
    full = b"x" * ENCODED_BYTES_MAX
    error = await api.refused(413, "PUT", ENVELOPE, params={"address": ADDRESS}, content=full)
    assert error["code"] == "UCXL-413-TOO_LARGE"


async def test_the_largest_content_that_fits_is_taken(api: Api) -> None:
    content = b"x" * (ENCODED_BYTES_MAX - 1000)
    await api.put(content)
    assert (await api.get()).content == content


async def test_unknown_paths_and_methods_are_refused_with_what_there_is(api: Api) -> None:
    error = await api.refused(404, "GET", "/v1/envelopes")
    assert "did you mean /v1/envelope?" in error["message"]
    await api.refused(404, "GET", "/")
    await api.refused(404, "POST", "/v1/envelope/")
    response = await api("PATCH", ENVELOPE)
    assert response.status_code == 405
    assert response.headers["allow"] == "DELETE, GET, HEAD, POST, PUT"
    assert (await api("DELETE", "/health")).headers["allow"] == "GET, HEAD"
    assert (await api("OPTIONS", "/v1/peers")).status_code == 405


@given(st.binary(max_size=60), st.binary(max_size=60))
async def test_no_request_causes_a_500(query: bytes, value: bytes) -> None:
    """Hypothesis drives the middleware directly: any query string, any header value."""
    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    for method in ("GET", "PUT", "DELETE"):
        for path in (ENVELOPE, "/v1/receipt", "/v1/pending"):
            answered.clear()
            names = (b"accept", b"if-match", b"if-none-match", b"ucxl-parents", b"content-type", b"idempotency-key")
            scope = {
                "type": "http", "method": method, "path": path, "query_string": b"address=" + query,
                "headers": [(name, value.replace(b"\r", b"").replace(b"\n", b"")) for name in names],
            }  # fmt: skip
            await _API_OVER_NOTHING(scope, _no_body, send)
            assert answered[0]["status"] < 500, answered


async def _no_body() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


class _Nothing:
    """A node that knows nothing: every call ends with `NotFound`."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **more: Any) -> Any:
        raise NotFound("nothing")


_API_OVER_NOTHING = Middleware(router(_Nothing()), LOOPBACK, now_ms=lambda: 0)  # type: ignore[arg-type]


# -- access -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.8.9.1"])
async def test_this_machine_may_be_named_in_any_way(api: Api, host: str) -> None:
    assert (await api("GET", "/ready", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:8080", "localhost.", "[", "a@b"]
)
async def test_a_host_that_is_not_this_machine_is_refused_on_loopback(api: Api, host: str) -> None:
    error = await api.refused(403, "GET", "/health", headers={"host": host})
    assert error["details"]["field"] == "Host"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:8080", "x"]
)
async def test_a_foreign_origin_is_refused_on_loopback(api: Api, origin: str) -> None:
    for method in ("GET", "PUT"):
        error = await api.refused(403, method, ENVELOPE, params={"address": ADDRESS}, headers={"origin": origin})
        assert error["details"]["field"] == "Origin"


async def test_a_page_of_this_api_itself_is_allowed(api: Api) -> None:
    assert (await api("GET", "/ready", headers={"origin": "http://127.0.0.1:8080"})).status_code == 200


async def test_with_a_token_all_but_the_open_paths_need_it(node: Node) -> None:
    async with served(node, ApiAccess(is_loopback=False, token="s3cret")) as api:
        for path in ("/health", "/ready", "/v1/bootstrap"):
            assert (await api("GET", path)).status_code == 200
        for path in set(RESOURCES) - {"/health", "/ready", "/v1/bootstrap"} | {"/nowhere"}:
            for given_token in (
                None,
                "Bearer",
                "Bearer wrong",
                "Basic s3cret",
                "s3cret",
                "Bearer s3cret2",
                "Bearer \xff",
            ):
                headers = {"authorization": given_token.encode("latin-1")} if given_token is not None else {}
                response = await api("GET", path, headers=headers)
                assert response.status_code == 401, (path, given_token)
                assert response.headers["www-authenticate"].startswith("Bearer")
                assert "s3cret" not in response.text
        assert (await api("GET", "/v1/node", headers={"authorization": "Bearer s3cret"})).status_code == 200
        assert (await api("GET", "/v1/node", headers={"authorization": "bearer  s3cret "})).status_code == 200
        elsewhere = {"host": "n1.example:8080", "origin": "http://evil.example", "authorization": "Bearer s3cret"}
        assert (await api("GET", "/v1/node", headers=elsewhere)).status_code == 200


async def test_bootstrap_shows_what_anyone_may_know_and_nothing_else(api: Api) -> None:
    data = (await api("GET", "/v1/bootstrap")).json()["response"]["data"]
    assert data == {"peer_id": KEY.peer_id, "multiaddrs": [], "network": "bzzz"}


async def test_a_request_id_that_was_sent_is_kept_when_it_is_one(api: Api) -> None:
    assert (await api("GET", "/ready", headers={"x-request-id": "my-id_1"})).headers["x-request-id"] == "my-id_1"
    for other in ("a b", "x" * 65, "<script>"):
        assert (await api("GET", "/ready", headers={"x-request-id": other})).headers["x-request-id"] != other


# -- the node ---------------------------------------------------------------------------------------------------------


async def test_the_node_says_who_it_is(api: Api) -> None:
    await api.put()
    data = (await api("GET", "/v1/node")).json()["response"]["data"]
    assert data["peer_id"] == KEY.peer_id
    assert (data["name"], data["network"], data["backend"], data["sequence"]) == ("n1", "bzzz", "mock", 1)
    assert (await api("GET", "/v1/peers")).json()["response"]["data"] == {"peers": []}
    pending = (await api("GET", "/v1/pending")).json()["response"]["data"]
    assert pending == {"count": 0, "oldest_age_ms": None, "refused": 0}
    health = (await api("GET", "/health")).json()["response"]["data"]
    assert health["status"] == "healthy"
    assert {"component", "backend", "status", "last_check", "error_count", "latency_ms", "reasons"} == set(
        health["components"][0]
    )


async def test_what_is_missing_from_a_history_is_said_in_header_and_json(api: Api) -> None:
    gone = b"\x07" * 32
    sealed = seal(
        OTHER, address=ADDRESS, content=b"x", content_type="text/plain", version=clock.version(now_ms(), 0),
        parents=(gone,),
    )  # fmt: skip
    await api.node.store.merge([Incoming(sealed, Origin.PEER)], now_ms=now_ms())
    listed = (await api("GET", "/v1/history", params={"address": ADDRESS})).json()["response"]["data"]
    assert listed["missing"] == [gone.hex()]
    first = await api.get(ADDRESS.replace("*^", "*~"))
    assert first.headers["UCXL-Degraded"] == "true"
    assert "1 earlier version" in first.headers["UCXL-Reason"]
    assert (await api.get()).headers["UCXL-Degraded"] == "false", "the head is whole"


async def test_the_node_counts_the_use_of_its_resolver_cache(api: Api) -> None:
    await api.put()
    beyond = {"address": ADDRESS.replace("*^", "*~9")}
    for _ in range(2):
        assert (await api.get(ADDRESS.replace("*^", "*~"))).status_code == 200
        await api.refused(404, "GET", ENVELOPE, params=beyond)
    assert (await api.get(ADDRESS.replace("*^", "*~"))).status_code == 200
    kept = await api.refused(404, "GET", ENVELOPE, params=beyond)
    assert kept["details"]["age_ms"] >= 0, "an answer from the cache says how old it is"
    counts = (await api("GET", "/v1/node")).json()["response"]["data"]["resolver"]
    assert (counts["misses"], counts["hits"], counts["entries"]) == (2, 4, 2)
    await api.put(b"more")
    counts = (await api("GET", "/v1/node")).json()["response"]["data"]["resolver"]
    assert (counts["invalidated"], counts["entries"], counts["size_bytes"]) == (2, 0, 0)


async def test_a_node_that_failed_is_503_and_still_says_what_is_wrong(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = replace(api.node.health(), status="failed", reasons=("the disk is gone",))
    monkeypatch.setattr(api.node, "health", lambda: report)
    error = await api.refused(503, "GET", "/health")
    assert error["message"] == "the disk is gone"
    assert error["details"]["status"] == "failed"
    assert error["retryable"] is True


async def test_an_api_that_fails_again_and_again_is_degraded_and_tells_no_secrets(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def health_of_api() -> tuple[str, int, tuple[str, ...]]:
        (one,) = [one for one in api.node.health().components if one.component == "api"]
        return one.status, one.error_count, one.reasons

    for _ in range(5):
        await api.refused(400, "GET", "/v1/pending", params={"state": "nonsense"})
    assert health_of_api() == ("healthy", 0, ()), "an error of the client is no failure of the API"

    def fail() -> None:
        raise RuntimeError("a secret")

    with monkeypatch.context() as patched:
        patched.setattr(api.node, "peers", fail)
        for _ in range(3):
            assert health_of_api()[0] == "healthy"
            await api.refused(500, "GET", "/v1/peers")
    status, errors, (reason,) = health_of_api()
    assert (status, errors) == ("degraded", 3)
    assert reason.startswith("requests fail, the last with: an internal error (RuntimeError)")
    assert "secret" not in reason
    for _ in range(2):
        await api("GET", "/v1/peers")
    assert health_of_api() == ("healthy", 3, ())


async def test_the_resolver_is_judged_by_its_look_ups(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: Any, **__: Any) -> None:
        raise Unavailable("the holders are silent")

    await api("PUT", ENVELOPE, params={"address": ADDRESS}, content=b"one")
    with monkeypatch.context() as patched:
        patched.setattr(api.node.resolver, "_at", silent)
        for _ in range(3):
            await api.refused(503, "GET", ENVELOPE, params={"address": ADDRESS.replace("*^", "*~")})
    (one,) = [one for one in api.node.health().components if one.component == "resolver"]
    assert (one.status, one.error_count) == ("degraded", 3)
    assert one.reasons == ("look-ups fail, the last with: the holders are silent",)


async def test_an_error_repeats_the_beginning_of_a_long_path(api: Api) -> None:
    error = await api.refused(404, "GET", "/" + "x" * 20_000)
    assert error["path"] == "/" + "x" * 199


async def test_a_node_that_is_not_ready_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.node, "is_ready", lambda: False)
    await api.refused(503, "GET", "/ready")


async def test_a_defect_is_a_500_that_names_only_the_request(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.node, "peers", broken)
    error = await api.refused(500, "GET", "/v1/peers")
    assert error["code"] == "UCXL-500-INTERNAL"
    assert "secret detail" not in json.dumps(error)
    assert error["request_id"] in error["message"]


async def test_an_error_inside_groups_of_one_is_found(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def grouped(*_: Any, **__: Any) -> None:
        raise ExceptionGroup("a", [ExceptionGroup("b", [Unavailable("nobody answered", retry_after_ms=1500)])])

    monkeypatch.setattr(api.node.resolver, "resolve", grouped)
    response = await api.get()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"


# -- pieces -----------------------------------------------------------------------------------------------------------


def test_a_version_known_by_its_notice_alone_is_unavailable_and_nothing_at_all_is_not_found() -> None:
    provenance = Provenance(Backend.HYBRID, "swarm", 0.0, 1, 0, False)
    with pytest.raises(NotFound):
        FoundContent.of(Answer((), provenance))


def test_digests_are_read_with_and_without_quotes_and_nothing_else_is() -> None:
    one, two = sha256(b"1").hexdigest(), sha256(b"2").hexdigest()
    assert tags("x", f' "{one}" ,{two.upper()}, W/"{one}"') == (bytes.fromhex(one), bytes.fromhex(two))
    assert tags("x", " , ") == ()
    for wrong in ("x", one[:-1], f'"{one}', f"{one} {two}", "*"):
        with pytest.raises(InvalidPayload):
            tags("x", wrong)


def test_retry_after_is_given_where_it_is_known() -> None:
    assert retry_after(ClockAhead("", ahead_ms=70_500)) == 11
    assert retry_after(Unavailable("", retry_after_ms=1)) == 1
    assert retry_after(Unavailable("")) is None


# -- in a swarm, in virtual time --------------------------------------------------------------------------------------

NAMES = ("n1", "n2", "n3")


def in_a_swarm(story: Callable[[VirtualSwarm, Api], Awaitable[None]], **settings: Any) -> None:
    """Run a story with the API of the first of three nodes that have met."""

    async def run() -> None:
        async with VirtualSwarm.open(1, NAMES, settings=Settings(**settings)) as swarm:
            n1 = swarm["n1"].running
            while sum(peer.is_connected for peer in n1.peers()) < 2:
                await trio.sleep(0.01)
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


def test_refused_hints_are_delivered_after_a_retry_and_the_audit_log_says_who_asked() -> None:
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
        with trio.fail_after(10):
            while n1.store.pending().count:
                await trio.sleep(0.1)
        for name in ("n2", "n3"):
            assert [head.digest for head in await swarm[name].running.store.heads(parse(ADDRESS).key)]

        again = (await api("POST", "/v1/pending/retry")).json()["response"]["data"]
        assert again == {"retried": 0, "count": 0, "oldest_age_ms": None, "refused": 0}
        lines = [json.loads(line) for line in await n1.audit.lines()]
        entries = [(e["author"], e["reason"], e["details"]) for e in lines if e["act"] == "hints.retried"]
        assert entries == [("ada", "n2 and n3 are repaired", {"hints": 2})], "a retry of nothing is no act"

    in_a_swarm(story)


@pytest.mark.parametrize(
    ("body", "part"),
    [(b"[]", "not an object"), (b'{"holder": "n2"}', "no field 'holder'"), (b'{"reason": 1}', "one line")],
)
async def test_a_retry_with_a_wrong_body_is_refused(api: Api, body: bytes, part: str) -> None:
    assert part in (await api.refused(400, "POST", "/v1/pending/retry", content=body))["message"]
    assert (await api("GET", "/v1/pending/retry")).headers["allow"] == "POST"


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
