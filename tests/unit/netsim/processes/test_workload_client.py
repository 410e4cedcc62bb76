"""How the client of real nodes records their replies, and a missing reply."""

import json
from typing import Any

import pytest

from netsim.history import Outcome, ShownVersion
from netsim.processes.client import NodeClient, NodeReply
from netsim.processes.workload_client import WorkloadClient, failed_call, node_seconds
from netsim.workload import Call, Parents

A, B = "a" * 64, "b" * 64


class Scripted(NodeClient):
    """Returns the given replies in turn, and keeps the requests."""

    def __init__(self, *replies: NodeReply) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def call(self, method: str, path: str, *args: Any, **kwargs: Any) -> NodeReply:
        self.asked.append((method, path, kwargs))
        return self.replies.pop(0)


def success(status: int, **data: object) -> NodeReply:
    body = json.dumps({"response": {"data": data}}).encode()
    return NodeReply(status=status, elapsed_ms=1.0, body=body, headers={"Server-Timing": "node;dur=12.500"})


def error(status: int, code: str, **details: object) -> NodeReply:
    body = json.dumps({"error": {"code": code, "message": "why", "details": details}}).encode()
    return NodeReply(status=status, elapsed_ms=1.0, body=body)


def version(digest: str, *parents: str, **others: object) -> dict[str, object]:
    return {"digest": digest, "version": "7", "author": "peer", "deleted": False, "parents": list(parents), **others}


def call(kind: str = "write", how: str = "node", id: int = 4) -> Call:
    return Call(id=id, at=0.0, client="c1", node="n1", kind=kind, key="k1", how=how, size_bytes=20)


RECEIPT: dict[str, Any] = {
    "digest": A, "version": "7", "parents": [B], "backend": "real", "durability": "replicated", "acknowledged": 1,
    "wanted": 4, "quorum": 1, "log": "0" * 16, "sequence": 3,
}  # fmt: skip
PROVENANCE = {
    "backend": "mock", "source": "local", "age_ms": 3.0, "replicas": 1, "siblings": 1, "degraded": False, "reason": ""
}  # fmt: skip


def client() -> WorkloadClient:
    return WorkloadClient(lambda peer: {"peer": "n1"}.get(peer, peer))


@pytest.mark.parametrize("status", [201, 202])
def test_a_receipt_becomes_an_acknowledged_write_with_the_nodes_own_time(status: int) -> None:
    result = client().call(Scripted(success(status, **RECEIPT)), call(), ())
    assert (result.outcome, result.digest, result.node_seconds) == (Outcome.OK, A[:16], 0.0125)
    assert result.receipt is not None and result.receipt.parents == (B[:16],)


def test_a_write_names_its_operation_and_what_its_client_saw_in_full() -> None:
    api, one = Scripted(success(201, **RECEIPT), success(201, **RECEIPT), success(201, **RECEIPT)), client()
    one.call(api, call(), ())
    one.call(api, call(how=Parents.SEEN, id=5), (A[:16],))
    one.call(api, call(how=Parents.NONE, id=6), ())
    headers = [asked[2]["headers"] for asked in api.asked]
    assert [sent["UCXL-Meta-op"] for sent in headers] == ["4", "5", "6"]
    assert [sent.get("UCXL-Parents") for sent in headers] == [None, A, ""]


def test_a_read_has_all_heads_and_the_writer_of_the_one_with_content() -> None:
    data = {"envelope": version(A, B, meta={"op": "9"}), "siblings": [version(B)], "provenance": PROVENANCE}
    result = client().call(Scripted(success(200, **data)), call("read", "auto"), ())
    assert result.answer is not None and result.answer.source == "local"
    assert result.answer.heads == (
        ShownVersion(A[:16], 7, "n1", 9, False, (B[:16],), True),
        ShownVersion(B[:16], 7, "n1", 0, False, (), False),
    )


def test_nothing_there_is_an_answer() -> None:
    result = client().call(Scripted(error(404, "UCXL-404-NOT_FOUND")), call("read", "auto"), ())
    assert result.outcome is Outcome.OK and result.answer is not None and result.answer.heads == ()


@pytest.mark.parametrize(
    ("reply", "outcome", "digest"),
    [
        (error(503, "UCXL-503-UNAVAILABLE"), Outcome.FAILED, ""),
        (error(409, "UCXL-409-CONFLICT", digest=A), Outcome.FAILED, ""),
        (error(504, "UCXL-504-INDETERMINATE", digest=A), Outcome.UNKNOWN, A[:16]),
        (error(500, "UCXL-500-INTERNAL"), Outcome.UNKNOWN, ""),
        (NodeReply(status=0, elapsed_ms=1.0, problem="reset"), Outcome.UNKNOWN, ""),
        (NodeReply(status=502, elapsed_ms=1.0, body=b"<html>"), Outcome.UNKNOWN, ""),
    ],
)
def test_only_what_a_node_rules_out_counts_as_failed(reply: NodeReply, outcome: Outcome, digest: str) -> None:
    result = failed_call(reply)
    assert (result.outcome, result.digest) == (outcome, digest)
    assert result.error


def test_what_is_held_and_acknowledged_is_read_over_all_pages() -> None:
    one = client()
    one.call(Scripted(success(201, **RECEIPT)), call(), ())
    rows = [version(A, B, held=True), version(B, held=True), version("c" * 64, held=False)]
    pages = Scripted(success(200, versions=rows[:2], total=3), success(200, versions=rows[2:], total=3))
    assert one.acknowledged(pages, "k1") == {A[:16]}
    assert not pages.replies


def test_a_node_that_does_not_say_how_long_it_took_is_believed_nothing() -> None:
    assert node_seconds(NodeReply(status=200, elapsed_ms=1.0)) is None
    assert (
        node_seconds(NodeReply(status=200, elapsed_ms=1.0, headers={"Server-Timing": "cache;dur=9, node;dur=7.25"}))
        == 0.00725
    )
