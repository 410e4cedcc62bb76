"""A client of real nodes: makes the calls of a plan over their HTTP APIs, and records the results for the history."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from netsim.history import DIGEST_DIGITS, AnswerRecord, Outcome, ReceiptRecord, ShownVersion
from netsim.processes.client import NodeClient, NodeReply
from netsim.workload import OPERATION_META, Call, Parents, address_of
from netsim.world import CallResult

PAGE = 1000
_NODE_TIME = re.compile(r"\bnode;dur=([0-9.]+)")
_JSON = {"Accept": "application/json"}
_NO_PROVENANCE: Mapping[str, Any] = {
    "backend": "unsaid", "source": "swarm", "age_ms": None, "replicas": 0, "siblings": 0, "degraded": False,
    "reason": "",
}  # fmt: skip
"""For a 404 over HTTP, which has no provenance: these values break no check."""


class NoAnswer(Exception):
    """A node that should work did not answer a question; the message says which node or question."""


class WorkloadClient:
    """One for all nodes: a client may name as parents what it saw at any node. `name_of` turns a peer id into the
    node's name."""

    def __init__(self, name_of: Callable[[str], str]) -> None:
        self._name_of = name_of
        self._digests: dict[str, str] = {}
        """By short digest: the digests that nodes have shown."""
        self._refs: dict[str, ShownVersion] = {}
        """Versions whose writer is known, by short digest."""
        self._acknowledged: set[str] = set()

    def call(self, api: NodeClient, call: Call, parents: Iterable[str]) -> CallResult:
        """Make one call, and wait for its answer. Several threads may do so at once."""
        return self._write(api, call, parents) if call.is_write else self._read(api, call)

    # -- writes -----------------------------------------------------------------------------------------------

    def _write(self, api: NodeClient, call: Call, parents: Iterable[str]) -> CallResult:
        headers = {"Content-Type": "text/plain", f"UCXL-Meta-{OPERATION_META}": str(call.id)}
        if call.how == Parents.NONE:
            headers["UCXL-Parents"] = ""
        elif call.how == Parents.SEEN:
            headers["UCXL-Parents"] = ", ".join(self._digests[one] for one in parents if one in self._digests)
        is_delete = call.kind == "delete"
        reply = api.call(
            "DELETE" if is_delete else "PUT", "/v1/envelope", {"address": address_of(call.key).canonical},
            headers=headers, body=None if is_delete else call.content(),
        )  # fmt: skip
        if reply.status not in (201, 202):
            return failed_call(reply)
        data = reply.data
        digest = self._short(data["digest"])
        receipt = ReceiptRecord(
            digest=digest,
            version=int(data["version"]),
            parents=tuple(map(self._short, data["parents"])),
            backend=data["backend"],
            durability=data["durability"],
            acknowledged=data["acknowledged"],
            wanted=data["wanted"],
            quorum=data["quorum"],
            log_id=data["log"],
            sequence=data["sequence"],
        )
        ref = ShownVersion(digest, receipt.version, call.node, call.id, is_delete, receipt.parents)
        self._refs[digest] = ref
        self._acknowledged.add(digest)
        return CallResult(outcome=Outcome.OK, digest=digest, receipt=receipt, node_seconds=node_seconds(reply))

    # -- reads ------------------------------------------------------------------------------------------------

    def _read(self, api: NodeClient, call: Call) -> CallResult:
        if call.lists:
            api.call("GET", "/v1/history", {"address": address_of(call.key).canonical, "consistency": "swarm"})
        reply = self._get(api, call.key, consistency=call.how)
        if reply.status not in (200, 404):
            return failed_call(reply)
        provenance = reply.data.get("provenance", _NO_PROVENANCE)
        return CallResult(
            outcome=Outcome.OK,
            node_seconds=node_seconds(reply),
            answer=AnswerRecord(
                heads=self._heads(reply),
                backend=provenance["backend"],
                source=provenance["source"],
                age_ms=provenance["age_ms"],
                replicas=provenance["replicas"],
                siblings=provenance["siblings"],
                is_degraded=provenance["degraded"],
                reason=provenance["reason"],
            ),
        )

    def _get(self, api: NodeClient, key: str, **fields: str) -> NodeReply:
        return api.call("GET", "/v1/envelope", {"address": address_of(key).canonical, **fields}, headers=_JSON)

    def _heads(self, reply: NodeReply) -> tuple[ShownVersion, ...]:
        data = reply.data
        if not data:
            return ()
        return (self._ref(data["envelope"]), *map(self._ref, data["siblings"]))

    def _ref(self, row: Mapping[str, Any]) -> ShownVersion:
        """A version as the API shows it. A sibling has the fields of a notice: neither content nor writer."""
        digest = self._short(row["digest"])
        if (known := self._refs.get(digest)) is not None:
            return known
        meta = row.get("meta")
        op = (meta or {}).get(OPERATION_META, "0")
        ref = ShownVersion(
            digest, int(row["version"]), self._name_of(row["author"]), int(op) if op.isdecimal() else 0,
            row["deleted"], tuple(map(self._short, row["parents"])), meta is not None,
        )  # fmt: skip
        if meta is not None:
            self._refs[digest] = ref
        return ref

    # -- what a node holds ------------------------------------------------------------------------------------

    def acknowledged(self, api: NodeClient, key: str) -> set[str]:
        """The digests of the acknowledged versions of a key that a node itself holds. Raises `NoAnswer`."""
        return {self._short(row["digest"]) for row in self._history(api, key) if row["held"]} & self._acknowledged

    def versions(self, api: NodeClient, key: str) -> tuple[tuple[ShownVersion, ...], tuple[str, ...], dict[str, str]]:
        """All that a node itself holds of a key: the versions, the heads (the latest first), and the digest of each
        reissued version with that of the version in its place.

        Raises `NoAnswer`.
        """
        refs: list[ShownVersion] = []
        heads: list[ShownVersion] = []
        reissued: dict[str, str] = {}
        for row in self._history(api, key):
            digest = self._short(row["digest"])
            if digest not in self._refs and row["held"]:
                self._heads(self._get(api, key, digest=row["digest"], consistency="local"))
            ref = self._ref(row)
            refs.append(ref._replace(is_held=row["held"]))
            if row["head"]:
                heads.append(ref)
            if row["reissued_as"]:
                reissued[digest] = self._short(row["reissued_as"])
        heads.sort(key=lambda ref: ref.order, reverse=True)
        return tuple(refs), tuple(ref.digest for ref in heads), reissued

    def _history(self, api: NodeClient, key: str) -> list[dict[str, Any]]:
        versions: list[dict[str, Any]] = []
        while True:
            fields = {"address": address_of(key).canonical, "consistency": "local", "limit": str(PAGE)}
            reply = api.call("GET", "/v1/history", fields | {"after": str(len(versions))})
            if reply.status == 404:
                return versions
            if reply.status != 200:
                raise NoAnswer(f"the history of {key}: {reply}")
            page = reply.data["versions"]
            versions += page
            if not page or len(versions) >= reply.data["total"]:
                return versions

    def _short(self, digest: str) -> str:
        short = digest[:DIGEST_DIGITS]
        self._digests[short] = digest
        return short


def node_seconds(reply: NodeReply) -> float | None:
    """How long the call took by the node's own clock; None when the reply does not say."""
    found = _NODE_TIME.search(reply.headers.get("Server-Timing", ""))
    return float(found[1]) / 1000 if found else None


def failed_call(reply: NodeReply) -> CallResult:
    """A reply that is no success, for the history: the call failed, or its outcome is unknown."""
    if reply.status == 0:
        return CallResult(outcome=Outcome.UNKNOWN, error=f"no answer: {reply.problem}")
    try:
        digest = str(json.loads(reply.body)["error"]["details"].get("digest", ""))[:DIGEST_DIGITS]
    except (ValueError, KeyError, TypeError, AttributeError):
        digest = ""
    is_unknown = reply.status in (500, 502, 504)
    return CallResult(
        outcome=Outcome.UNKNOWN if is_unknown else Outcome.FAILED,
        error=str(reply),
        digest=digest if is_unknown else "",
        node_seconds=node_seconds(reply),
    )
