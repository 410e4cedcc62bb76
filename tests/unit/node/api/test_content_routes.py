"""Content by its CID: the same bytes at whichever address they were written, and nothing that is not held here."""

from hashlib import sha256
from urllib.parse import quote

import pytest

from node.api.media import JSON_TYPE
from protocols import cid
from tests.unit.node.api.served import ADDRESS, ENVELOPE, Api

CONTENT = b"<b>hello</b>"
NAME = cid.encode(sha256(CONTENT).digest())
PATH = f"/v1/content/{NAME}"


async def test_every_answer_with_content_names_its_cid_and_the_cid_gives_the_content(api: Api) -> None:
    receipt = await api.put(CONTENT, headers={"content-type": "text/html"})
    assert receipt["cid"] == NAME
    assert (await api.get()).headers["ucxl-cid"] == NAME
    assert (await api.get(headers={"accept": JSON_TYPE})).json()["response"]["data"]["envelope"]["cid"] == NAME
    for method in ("GET", "HEAD"):
        response = await api(method, PATH)
        assert response.status_code == 200
        assert response.content == (CONTENT if method == "GET" else b"")
        assert response.headers["content-type"] == "text/html"
        assert response.headers["content-length"] == str(len(CONTENT))
        assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert response.headers["ucxl-cid"] == NAME
        assert response.headers["etag"] == f'"{NAME}"'


async def test_a_client_that_has_the_content_is_not_sent_it_again(api: Api) -> None:
    await api.put(CONTENT)
    response = await api("GET", PATH, headers={"if-none-match": f'"{NAME}"'})
    assert (response.status_code, response.content) == (304, b"")
    response = await api("GET", PATH, headers={"if-none-match": '"other"'})
    assert (response.status_code, response.headers["ucxl-source"]) == (200, "local")


async def test_as_json_the_content_is_text_or_base64(api: Api) -> None:
    await api.put(b"\xff\xfe")
    name = cid.encode(sha256(b"\xff\xfe").digest())
    response = await api("GET", f"/v1/content/{name}", headers={"accept": JSON_TYPE})
    assert response.json()["response"]["data"] == {
        "cid": name, "content_type": "application/octet-stream", "size_bytes": 2, "content": "//4=",
        "content_encoding": "base64", "source": "local",
    }  # fmt: skip


@pytest.mark.parametrize("consistency", ["auto", "local", "swarm"])
async def test_content_that_is_not_here_is_404_and_says_that_no_other_node_was_asked(
    api: Api, consistency: str
) -> None:
    response = await api("GET", PATH, params={"consistency": consistency, "timeout_ms": "500"})
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["code"] == "UCXL-404-NOT_FOUND"
    assert "no other node was asked" in error["message"]
    assert error["details"]["cid"] == NAME


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("QmaozNR7DZHQK1ZcU9p7QdrshMvXqWK6gpu5rmrkPdT3L4", "CIDv0"),
        ("bafybeifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e", "dag-pb"),
        ("nonsense", "no CID"),
        ("\u00e9\n", "no CID"),
    ],
)
async def test_what_is_no_cid_of_content_is_refused(api: Api, name: str, why: str) -> None:
    response = await api("GET", f"/v1/content/{quote(name)}")
    assert response.status_code == 400
    assert why in response.json()["error"]["message"]
    assert response.json()["error"]["details"]["field"] == "cid"


async def test_a_tombstone_has_no_cid(api: Api) -> None:
    await api.put(CONTENT)
    response = await api("DELETE", ENVELOPE, params={"address": ADDRESS})
    assert response.json()["response"]["data"]["cid"] is None
    history = await api("GET", "/v1/history", params={"address": ADDRESS})
    assert [each["cid"] for each in history.json()["response"]["data"]["versions"]] == [NAME, None]
    assert (await api("GET", PATH)).content == CONTENT, "what was deleted is still in the history"
