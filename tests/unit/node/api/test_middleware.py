"""The middleware: access, sizes, request ids, and errors as answers. `test_server.py` tests the server."""

import json
import re
from typing import Any

import pytest

from node.api.middleware import ApiAccess
from node.api.request import Request
from node.api.routes import RESOURCES
from node.node import Node
from protocols.errors import Unavailable
from protocols.header import ENCODED_BYTES_MAX
from tests.unit.node.api.served import (
    ADDRESS,
    API_OVER_NOTHING,
    BARE,
    ENVELOPE,
    Api,
    served,
)


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


@pytest.mark.parametrize(("announced", "bytes_read_max"), [(10**12, 0), (None, ENCODED_BYTES_MAX + 65536)])
async def test_what_is_too_large_is_refused_before_it_is_read(announced: int | None, bytes_read_max: int) -> None:
    read = 0

    async def receive() -> bool:
        nonlocal read
        read += 65536
        request.size_bytes = read
        return True

    headers = {b"content-length": b"%d" % announced} if announced else {}
    request = Request(method="PUT", path=ENVELOPE, headers=headers, is_whole=False, receive=receive)
    answer = await API_OVER_NOTHING(request)
    assert answer.status == 413
    assert json.loads(answer.body)["error"]["details"]["size_bytes_max"] == ENCODED_BYTES_MAX
    assert read <= bytes_read_max


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


async def test_a_request_id_that_was_sent_is_kept_when_it_is_one(api: Api) -> None:
    assert (await api("GET", "/ready", headers={"x-request-id": "my-id_1"})).headers["x-request-id"] == "my-id_1"
    for other in ("a b", "x" * 65, "<script>"):
        assert (await api("GET", "/ready", headers={"x-request-id": other})).headers["x-request-id"] != other


async def test_an_error_repeats_the_beginning_of_a_long_path(api: Api) -> None:
    error = await api.refused(404, "GET", "/" + "x" * 20_000)
    assert error["path"] == "/" + "x" * 199


async def test_a_defect_is_a_500_that_names_only_the_request(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.node.peer_list, "page", broken)
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
