"""The answer to a read: its forms and their headers."""

import pytest

from node.api.content import ServedVersion
from node.api.headers import head_tag
from node.api.media import DEFAULT_TYPE, ENVELOPE_TYPE, JSON_TYPE
from node.dht.base import Answer, Backend, Provenance
from protocols import clock
from protocols.envelope import seal
from protocols.errors import NotFound
from tests.unit.node.api.served import ADDRESS, ENVELOPE, OTHER, Api, now_ms


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
    assert data["envelope"]["format"] == [2, 0]
    assert data["provenance"] == {
        "backend": "mock", "source": "local", "age_ms": 0.0, "replicas": 1, "siblings": 0, "degraded": False,
        "reason": "",
    }  # fmt: skip
    assert data["siblings"] == []
    await api.put(b"\xff\xfe")
    envelope = (await api.get(headers={"accept": JSON_TYPE})).json()["response"]["data"]["envelope"]
    assert (envelope["content"], envelope["content_encoding"]) == ("//4=", "base64")


@pytest.mark.parametrize(("parents", "shown"), [(0, 256), (32, 256), (256, 32)])
def test_of_very_many_siblings_the_latest_are_listed(parents: int, shown: int) -> None:
    named = tuple(bytes([number]) * 32 for number in range(parents))
    heads = [
        seal(OTHER, address=ADDRESS, content=b"", content_type="text/plain", version=number, parents=named)
        for number in range(300, 0, -1)
    ]
    found = ServedVersion.of(Answer(tuple(heads), Provenance(Backend.MOCK, "local", 0.0, 1, len(heads) - 1, False)))
    data = found.as_json()
    assert [each["digest"] for each in data["siblings"]] == [head.digest.hex() for head in heads[1 : shown + 1]]
    assert data["provenance"]["siblings"] == 299
    assert found.tag == head_tag([head.digest for head in heads]), "the tag names all of them"


async def test_a_version_that_the_client_has_is_not_sent_again(api: Api) -> None:
    digest = (await api.put())["digest"]
    for value in (f'"{digest}"', f'W/"{digest}"', "*", f'"x", "{digest}"'):
        response = await api.get(headers={"if-none-match": value})
        assert response.status_code == 304, value
        assert response.content == b""
        assert response.headers["etag"] == f'"{digest}"'
    assert (await api.get(headers={"if-none-match": '"' + "0" * 64 + '"'})).status_code == 200


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


def test_a_version_known_by_its_notice_alone_is_unavailable_and_nothing_at_all_is_not_found() -> None:
    provenance = Provenance(Backend.HYBRID, "swarm", 0.0, 1, 0, False)
    with pytest.raises(NotFound):
        ServedVersion.of(Answer((), provenance))
