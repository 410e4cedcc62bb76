"""The routes over a whole node in memory, which is alone: their answers and their errors."""

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import trio

from node.api.media import ENVELOPE_TYPE, JSON_TYPE
from node.store.log import Incoming, Origin
from protocols import cid, clock
from protocols.envelope import decode, seal
from protocols.errors import Unavailable
from protocols.header import ENCODED_BYTES_MAX
from tests.unit.node.api.served import ADDRESS, BARE, ENVELOPE, KEY, OTHER, Api, now_ms


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


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded; a=b"])
async def test_the_type_that_curl_sends_by_itself_is_stored_with_a_hint(api: Api, media_type: str) -> None:
    response = await api(
        "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"a=b", headers={"content-type": media_type}
    )
    assert response.status_code == 202
    assert "-H 'Content-Type: text/plain'" in response.json()["response"]["message"]
    assert (await api.get()).headers["content-type"] == media_type
    plain = await api(
        "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"a=b", headers={"content-type": "text/plain"}
    )
    assert "curl" not in plain.json()["response"]["message"]


async def test_a_receipt_has_every_field(api: Api) -> None:
    first = await api.put(b"1")
    second = await api.put(b"2")
    assert first == {
        "backend": "mock", "durability": "local", "replicated": False, "pending": False, "acknowledged": 0, "wanted": 0,
        "quorum": 0, "elapsed_ms": first["elapsed_ms"], "log": "ab" * 8, "sequence": 1, "address": ADDRESS,
        "version": first["version"], "written_at": first["written_at"], "digest": first["digest"], "parents": [],
        "cid": cid.encode(sha256(b"1").digest()), "reissued_as": None, "siblings": 0, "condition": None,
        "may_be_sibling": None,
    }  # fmt: skip
    assert second["parents"] == [first["digest"]]
    assert int(second["version"]) > int(first["version"]) > 2**53
    assert second["sequence"] == 2


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
    forged = sealed.encoded.replace(sealed.signature, bytes(64))
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
        (orphan.encoded, 422, "no node knows"),
        (sealed.encoded + b"\x00", 400, ""),
        (sealed.encoded[:-1] + b"y", 400, "not the one that was signed"),
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


async def siblings(api: Api, count: int) -> list[str]:
    """Write so many versions that do not know of each other; return their digests."""
    return [(await api.put(b"%d" % number, headers={"ucxl-parents": ""}))["digest"] for number in range(count)]


@pytest.mark.parametrize("form", ["*/*", JSON_TYPE])
async def test_the_loop_that_reads_and_writes_with_if_match_merges_siblings(api: Api, form: str) -> None:
    digests = await siblings(api, 3)
    read = await api.get(headers={"accept": form})
    tag = read.headers["etag"]
    assert tag.removeprefix("W/") not in [f'"{digest}"' for digest in digests]
    merged = await api.put(b"merged", headers={"if-match": tag})
    assert merged["parents"] == sorted(digests)
    assert merged["condition"] == "held on this node"
    read = await api.get()
    assert read.headers["ucxl-siblings"] == "0"
    assert read.headers["etag"] == f'"{read.headers["ucxl-digest"]}"' == f'"{merged["digest"]}"'


async def test_an_etag_stands_for_the_heads_that_were_given_and_for_no_others(api: Api) -> None:
    await siblings(api, 2)
    tag = (await api.get()).headers["etag"]
    assert (await api.get(headers={"if-none-match": tag})).status_code == 304
    await siblings(api, 1)
    assert (await api.get(headers={"if-none-match": tag})).status_code == 200
    here = {"address": ADDRESS}
    error = await api.refused(409, "PUT", ENVELOPE, params=here, content=b"4", headers={"if-match": tag})
    assert len(error["details"]["heads"]) == 3
    assert all(head in error["message"] for head in error["details"]["heads"])
    named = ", ".join(error["details"]["heads"])
    await api.refused(409, "PUT", ENVELOPE, params=here, content=b"4", headers={"if-match": named[:-66]})
    assert (await api.put(b"4", headers={"if-match": named}))["parents"] == sorted(error["details"]["heads"])
    await api.refused(400, "PUT", ENVELOPE, params=here, content=b"5", headers={"ucxl-parents": tag})


async def test_a_tombstone_beside_a_version_is_merged_by_the_loop_too(api: Api) -> None:
    one = await api.put(b"1")
    gone = await api("DELETE", ENVELOPE, params={"address": ADDRESS}, headers={"ucxl-parents": ""})
    deleted = gone.json()["response"]
    assert deleted["data"]["siblings"] == 1
    assert "beside 1 other" in deleted["message"]
    read = await api.get()
    assert read.status_code == 404
    assert read.json()["error"]["details"]["heads"] == [deleted["data"]["digest"], one["digest"]]
    merged = await api.put(b"2", headers={"if-match": read.headers["etag"]})
    assert merged["parents"] == sorted([one["digest"], deleted["data"]["digest"]])
    again = await api("GET", "/v1/receipt", params={"digest": merged["digest"]})
    assert again.json()["response"]["data"]["siblings"] == 0


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
    with trio.fail_after(30):
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


async def test_content_that_leaves_no_room_for_the_rest_of_its_envelope_is_refused(api: Api) -> None:
    full = b"x" * ENCODED_BYTES_MAX
    error = await api.refused(413, "PUT", ENVELOPE, params={"address": ADDRESS}, content=full)
    assert error["code"] == "UCXL-413-TOO_LARGE"


async def test_the_largest_content_that_fits_is_taken(api: Api) -> None:
    content = b"x" * (ENCODED_BYTES_MAX - 1000)
    await api.put(content)
    assert (await api.get()).content == content


async def test_bootstrap_shows_what_anyone_may_know_and_nothing_else(api: Api) -> None:
    data = (await api("GET", "/v1/bootstrap")).json()["response"]["data"]
    assert data == {"peer_id": KEY.peer_id, "multiaddrs": [], "network": "bzzz"}


async def test_the_node_gives_its_name_and_its_state(api: Api) -> None:
    await api.put()
    data = (await api("GET", "/v1/node")).json()["response"]["data"]
    assert data["peer_id"] == KEY.peer_id
    assert (data["name"], data["network"], data["backend"], data["sequence"]) == ("n1", "bzzz", "mock", 1)
    assert (await api("GET", "/v1/peers")).json()["response"]["data"] == {"peers": [], "after": 0, "total": 0}
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


async def test_a_version_without_content_is_passed_over_and_said_in_header_and_json(api: Api) -> None:
    receipt = await api.put(b"good")
    lost = seal(
        OTHER, address=ADDRESS, content=b"lost", content_type="text/plain", version=int(receipt["version"]) + 1,
        parents=[bytes.fromhex(receipt["digest"])],
    )  # fmt: skip
    await api.node.store.merge([Incoming(lost.notice, Origin.PEER)], now_ms=now_ms())
    response = await api.get()
    assert response.content == b"good"
    assert response.headers["ucxl-degraded"] == "true"
    why = f"a later version by {OTHER.peer_id} is known and its content is not"
    assert response.headers["ucxl-reason"] == why
    data = (await api.get(headers={"accept": JSON_TYPE})).json()["response"]["data"]
    assert [each["digest"] for each in data["without_content"]] == [lost.digest.hex()]
    assert data["provenance"]["reason"] == why
    etag = response.headers["etag"]
    again = await api.put(b"better", headers={"if-match": etag})
    assert again["parents"] == [receipt["digest"]]


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


async def test_the_resolver_is_judged_by_its_look_ups(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: Any, **__: Any) -> None:
        raise Unavailable("the holders are silent")

    await api("PUT", ENVELOPE, params={"address": ADDRESS}, content=b"one")
    with monkeypatch.context() as patched:
        # Private: in a swarm of one node no holder can be silent.
        patched.setattr(api.node.resolver, "_from_history", silent)
        for _ in range(3):
            await api.refused(503, "GET", ENVELOPE, params={"address": ADDRESS.replace("*^", "*~")})
    (one,) = [one for one in api.node.health().components if one.component == "resolver"]
    assert (one.status, one.error_count) == ("degraded", 3)
    assert one.reasons == ("look-ups fail, the last with: the holders are silent",)


@pytest.mark.parametrize(
    ("body", "part"),
    [(b"[]", "not an object"), (b'{"holder": "n2"}', "no field 'holder'"), (b'{"reason": 1}', "one line")],
)
async def test_a_retry_with_a_wrong_body_is_refused(api: Api, body: bytes, part: str) -> None:
    assert part in (await api.refused(400, "POST", "/v1/pending/retry", content=body))["message"]
    assert (await api("GET", "/v1/pending/retry")).headers["allow"] == "POST"
