"""A client of one real node: makes the calls of a plan over its API, and puts the answers into a history's words."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from netsim.history import DIGEST_DIGITS, Outcome, ReceiptRecord, Ref, Sight
from netsim.processes.client import NodeClient, NodeReply
from netsim.scenario.model import Parents
from netsim.scenario.plan import Call
from netsim.virtual.client import OP, address_of
from netsim.world import CallResult

PAGE = 1000
_TOOK = re.compile(r"\bnode;dur=([0-9.]+)")
_JSON = {"Accept": "application/json"}


class WorkloadClient:
    """`name_of` turns a peer id into the node's name. One for all nodes: a client follows what it saw anywhere."""

    def __init__(self, name_of: Callable[[str], str]) -> None:
        self._name_of = name_of
        self._full: dict[str, str] = {}
        self.refs: dict[str, Ref] = {}
        """Versions whose writer is known, by digest."""
        self._acknowledged: set[str] = set()

    def make(self, api: NodeClient, call: Call, parents: Iterable[str]) -> CallResult:
        """Make one call, and wait for its answer. May be called by several threads at once."""
        return self._write(api, call, parents) if call.is_write else self._read(api, call)

    # -- writing ----------------------------------------------------------------------------------------------

    def _write(self, api: NodeClient, call: Call, parents: Iterable[str]) -> CallResult:
        headers = {"Content-Type": "text/plain", f"UCXL-Meta-{OP}": str(call.id)}
        if call.how == Parents.NONE:
            headers["UCXL-Parents"] = ""
        elif call.how == Parents.SEEN:
            headers["UCXL-Parents"] = ", ".join(self._full[digest] for digest in parents if digest in self._full)
        is_delete = call.kind == "delete"
        reply = api.call(
            "DELETE" if is_delete else "PUT", "/v1/envelope", {"address": address_of(call.key).canonical},
            headers=headers, body=None if is_delete else call.content(),
        )  # fmt: skip
        if reply.status not in (201, 202):
            return failure(reply)
        told = reply.data
        digest = self._short(told["digest"])
        receipt = ReceiptRecord(
            digest=digest,
            version=int(told["version"]),
            parents=tuple(map(self._short, told["parents"])),
            backend=told["backend"],
            durability=told["durability"],
            acknowledged=told["acknowledged"],
            wanted=told["wanted"],
            quorum=told["quorum"],
            log_id=told["log"],
            sequence=told["sequence"],
        )
        ref = Ref(digest, receipt.version, call.node, call.id, is_delete, receipt.parents)
        self.refs[digest] = ref
        self._acknowledged.add(digest)
        return CallResult(outcome=Outcome.OK, digest=digest, receipt=receipt, took=took(reply))

    # -- reading ----------------------------------------------------------------------------------------------

    def _read(self, api: NodeClient, call: Call) -> CallResult:
        reply = self._get(api, call.key, consistency=call.how)
        if reply.status not in (200, 404):
            return failure(reply)
        told = reply.data.get("provenance", _UNTOLD)
        return CallResult(
            outcome=Outcome.OK,
            took=took(reply),
            sight=Sight(
                heads=self._heads(reply),
                backend=told["backend"],
                source=told["source"],
                age_ms=told["age_ms"],
                replicas=told["replicas"],
                siblings=told["siblings"],
                is_degraded=told["degraded"],
                reason=told["reason"],
            ),
        )

    def _get(self, api: NodeClient, key: str, **fields: str) -> NodeReply:
        return api.call("GET", "/v1/envelope", {"address": address_of(key).canonical, **fields}, headers=_JSON)

    def _heads(self, reply: NodeReply) -> tuple[Ref, ...]:
        data = reply.data
        if not data:
            return ()
        return (self._ref(data["envelope"]), *map(self._ref, data["siblings"]))

    def _ref(self, told: Mapping[str, Any]) -> Ref:
        """A version as the API tells it. Of a sibling it tells what a notice has: neither content nor writer."""
        digest = self._short(told["digest"])
        if (known := self.refs.get(digest)) is not None:
            return known
        meta = told.get("meta")
        op = (meta or {}).get(OP, "0")
        ref = Ref(
            digest, int(told["version"]), self._name_of(told["author"]), int(op) if op.isdecimal() else 0,
            told["deleted"], tuple(map(self._short, told["parents"])), meta is not None,
        )  # fmt: skip
        if meta is not None:
            self.refs[digest] = ref
        return ref

    def acknowledged(self, api: NodeClient, key: str) -> set[str]:
        """The digests of what a node itself holds of a key, as far as they were acknowledged. Raises `NoAnswer`."""
        return {self._short(told["digest"]) for told in self._history(api, key) if told["held"]} & self._acknowledged

    def versions(self, api: NodeClient, key: str) -> tuple[tuple[Ref, ...], tuple[str, ...], dict[str, str]]:
        """All that a node itself holds of a key: the versions, the heads (the latest first), what was reissued as what.

        Raises `NoAnswer`.
        """
        refs: list[Ref] = []
        heads: list[Ref] = []
        reissued: dict[str, str] = {}
        for told in self._history(api, key):
            digest = self._short(told["digest"])
            if digest not in self.refs and told["held"]:
                self._heads(self._get(api, key, digest=told["digest"], consistency="local"))
            ref = self._ref(told)
            refs.append(ref._replace(is_held=told["held"]))
            if told["head"]:
                heads.append(ref)
            if told["reissued_as"]:
                reissued[digest] = self._short(told["reissued_as"])
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
        self._full[short] = digest
        return short


class NoAnswer(Exception):
    """A node that should be well did not say what it was asked for; the message says which of that."""


def took(reply: NodeReply) -> float | None:
    """The seconds that the node says it took; None when it says nothing."""
    found = _TOOK.search(reply.headers.get("Server-Timing", ""))
    return float(found[1]) / 1000 if found else None


def failure(reply: NodeReply) -> CallResult:
    """What an answer that is no success means for a history: it did not happen, or nobody knows."""
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
        took=took(reply),
    )


_UNTOLD: Mapping[str, Any] = {
    "backend": "unsaid", "source": "swarm", "age_ms": None, "replicas": 0, "siblings": 0, "degraded": False,
    "reason": "",
}  # fmt: skip
"""Of a 404 over HTTP: it does not say where it comes from, so that is not judged."""
