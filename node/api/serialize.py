"""Serializes the answers of the API as JSON: the UCXL payload shapes and the node's own values in them.

Digests and signatures are lower-case hex, times RFC 3339 in UTC with milliseconds, durations milliseconds. A version
has 64 bits, which neither JavaScript nor jq can hold as a number without rounding, so it is a decimal text.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from discovery.finder import FinderHealth
from node.dht.base import Provenance, Receipt, VersionHistory
from node.node import Node
from node.services.membership.directory import Offer
from node.services.membership.peer_list import PeerAddress, PeerStatus
from node.services.observe.health_report import HealthReport
from node.services.replication.at_risk import AtRisk
from node.store.hints import Hint, Pending
from node.store.versions import Version
from protocols import cid, clock
from protocols.capabilities import kind_of, text_of
from protocols.envelope import Envelope, Notice
from protocols.errors import BzzzError
from protocols.policy.cache import CacheCounts

SOURCE = "bzzz-node/v1"
PATH_CHARS_MAX = 200
"""An error repeats only the beginning of a long path, so that a long request makes no long answer."""


def encode(payload: Mapping[str, Any]) -> bytes:
    """JSON as bytes; a lone surrogate, which UTF-8 cannot carry, becomes a question mark."""
    return _encode(payload).encode("utf-8", "replace")


def _exact(value: object) -> object:
    """A whole number too large for a JavaScript number becomes text; every other value stays as it is."""
    return str(value) if isinstance(value, int) and abs(value) > 2**53 else value


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain).encode


def rfc3339(unix_ms: int) -> str:
    """Unix milliseconds as `2026-08-07T14:30:00.000Z`; the end of the year 9999 for anything later."""
    second, ms = divmod(unix_ms, 1000)
    if (written := _second(second)) is None:
        return "9999-12-31T23:59:59.999Z"
    return f"{written}.{ms:03d}Z"


@lru_cache(maxsize=256)
def _second(unix_seconds: int) -> str | None:
    """The same without milliseconds and zone, None for what no date has; kept, for an answer names times of now."""
    try:
        return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):
        return None


def response(code: str, message: str, data: Mapping[str, Any], *, request_id: str, now_ms: int) -> bytes:
    return encode(
        {
            "response": {
                "code": code, "message": message, "data": data, "details": {}, "request_id": request_id,
                "timestamp": rfc3339(now_ms),
            }
        }
    )  # fmt: skip


def error(problem: BzzzError, *, path: str, request_id: str, now_ms: int) -> bytes:
    cause = problem.__cause__
    return encode(
        {
            "error": {
                "code": problem.code, "message": problem.message, "source": SOURCE,
                "details": {name: _exact(value) for name, value in problem.details.items()},
                "path": path[:PATH_CHARS_MAX], "request_id": request_id, "timestamp": rfc3339(now_ms),
                "cause": str(cause) or type(cause).__name__ if cause is not None else "",
                "retryable": problem.retryable,
            }
        }
    )  # fmt: skip


def receipt(receipt: Receipt) -> dict[str, Any]:
    return {
        "backend": receipt.backend.value,
        "durability": receipt.durability.value,
        "replicated": receipt.is_replicated,
        "pending": receipt.quorum > 0 and not receipt.is_replicated,
        "acknowledged": receipt.acknowledged,
        "wanted": receipt.wanted,
        "quorum": receipt.quorum,
        "elapsed_ms": round(receipt.elapsed_ms, 3),
        "log": receipt.log_id,
        "sequence": receipt.sequence,
        "address": receipt.address,
        "version": str(receipt.version),
        "written_at": rfc3339(clock.ms_of(receipt.version)),
        "digest": receipt.digest.hex(),
        "parents": [parent.hex() for parent in receipt.parents],
        "cid": receipt.content_digest and cid.encode(receipt.content_digest),
        "reissued_as": receipt.reissued_as.hex() if receipt.reissued_as else None,
        "siblings": receipt.siblings,
        "condition": "held on this node" if receipt.is_conditional else None,
        "may_be_sibling": receipt.may_be_sibling or None,
    }


def provenance(provenance: Provenance) -> dict[str, Any]:
    return {
        "backend": provenance.backend.value,
        "source": provenance.source,
        "age_ms": None if provenance.age_ms is None else round(provenance.age_ms, 3),
        "replicas": provenance.replicas,
        "siblings": provenance.siblings,
        "degraded": provenance.is_degraded,
        "reason": provenance.reason,
    }


def envelope(envelope: Envelope) -> dict[str, Any]:
    """A whole envelope. `content` is text if it is valid UTF-8, else base64; `content_encoding` names which."""
    content, encoding = content_text(envelope.content)
    return {
        **notice(envelope),
        "format": list(envelope.format),
        "content": content,
        "content_encoding": encoding,
        "meta": dict(envelope.meta),
        "signature": envelope.signature.hex(),
    }


def content_text(content: bytes) -> tuple[str, str]:
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return b64encode(content).decode("ascii"), "base64"


def content(envelope: Envelope, source: str) -> dict[str, Any]:
    """The content of a version, its names, and where it came from."""
    content, encoding = content_text(envelope.content)
    return {
        "cid": cid.encode(envelope.content_digest),
        "content_type": envelope.content_type,
        "size_bytes": envelope.content_size,
        "content": content,
        "content_encoding": encoding,
        "source": source,
    }


def cid_of(version: Envelope | Notice) -> str | None:
    """The CID of the content of a version; None for a tombstone, which has none."""
    return None if version.deleted else cid.encode(version.content_digest)


def notice(version: Envelope | Notice) -> dict[str, Any]:
    """A version without its content."""
    return {
        "address": version.address,
        "digest": version.digest.hex(),
        "version": str(version.version),
        "written_at": rfc3339(clock.ms_of(version.version)),
        "author": version.author,
        "deleted": version.deleted,
        "parents": [parent.hex() for parent in version.parents],
        "content_digest": version.content_digest.hex(),
        "cid": cid_of(version),
        "content_type": version.content_type,
        "size_bytes": version.content_size,
    }


def history(history: VersionHistory) -> dict[str, Any]:
    return {
        "versions": [version(each) for each in history.versions],
        "total": history.total,
        "complete": history.is_complete,
        "missing": [digest.hex() for digest in history.missing],
        "provenance": provenance(history.provenance),
    }


def counts(counts: CacheCounts) -> dict[str, int]:
    """The counters of the resolver's cache."""
    return asdict(counts)


def version(version: Version) -> dict[str, Any]:
    return {
        **notice(version.notice),
        "held": version.is_held,
        "head": version.is_head,
        "reissued_as": version.reissued_as.hex() if version.reissued_as else None,
    }


def pending(pending: Pending, hints: Sequence[Hint] | None, *, now_ms: int) -> dict[str, Any]:
    """How many hints wait; with the hints themselves unless `hints` is None."""
    oldest = None if pending.oldest_at_ms is None else max(0, now_ms - pending.oldest_at_ms)
    counts: dict[str, Any] = {"count": pending.count, "oldest_age_ms": oldest, "refused": pending.refused}
    return counts if hints is None else {**counts, "hints": [hint(each, now_ms=now_ms) for each in hints]}


def hint(hint: Hint, *, now_ms: int) -> dict[str, Any]:
    return {
        "holder": hint.holder,
        "address": hint.address,
        "digest": hint.digest.hex(),
        "sequence": hint.sequence,
        "attempts": hint.attempts,
        "next_try": rfc3339(hint.next_try_ms) if hint.next_try_ms and not hint.is_refused else None,
        "refusal": hint.refusal,
        "refused": hint.is_refused,
        "age_ms": max(0, now_ms - hint.at_ms),
    }


def at_risk(node: Node, risk: AtRisk) -> dict[str, Any]:
    """The addresses with too few replicas, and the members that are gone."""
    oldest = None if risk.oldest_at_ms is None else max(0, node.now_ms() - risk.oldest_at_ms)
    return {
        "addresses": risk.addresses,
        "by_missing": {str(missing): count for missing, count in risk.by_missing.items()},
        "oldest_age_ms": oldest,
        "oldest_address": risk.oldest_address,
        "complete": risk.is_complete,
        "replaced": [{"peer_id": p, "name": node.members.name_of(p)} for p in sorted(node.members.replaced)],
        "held": node.risk.held,
    }


def peers(peers: Sequence[PeerStatus], *, after: int, total: int) -> dict[str, Any]:
    """A page of the list, of which the first `after` are left out, and how many there are."""
    return {"peers": [peer(each) for each in peers], "after": after, "total": total}


def finder(health: FinderHealth) -> dict[str, Any]:
    return {
        "kind": health.kind,
        "on": health.is_on,
        "sources": health.sources,
        "interfaces": list(health.interfaces),
        "faults": list(health.faults),
        "counts": dict(health.counts),
    }


def peer(peer: PeerStatus) -> dict[str, Any]:
    return {
        "peer_id": peer.peer or None,
        "name": peer.name,
        "state": peer.state.value,
        "member": peer.is_member,
        "connected": peer.is_connected,
        "suspect": peer.is_suspect,
        "sources": [{"source": source, "age_ms": round(age_ms)} for source, age_ms in peer.sources],
        "multiaddrs": [each.address for each in peer.addresses],
        "addresses": [_address(each) for each in peer.addresses],
        "last_seen": rfc3339(peer.last_seen_ms) if peer.last_seen_ms else None,
        "owed": peer.hints,
        "clock_offset_ms": peer.clock_offset_ms,
        "round_trip_ms": peer.round_trip_ms,
        "agent": peer.agent,
        "capabilities": list(peer.capabilities),
        "last_error": peer.last_error,
    }


def _address(address: PeerAddress) -> dict[str, Any]:
    return {"multiaddr": address.address, "sources": list(address.sources), "age_ms": round(address.age_ms)}


def capabilities(node: Node) -> dict[str, Any]:
    store = node.capabilities
    return {
        "capabilities": list(store.texts),
        "set_by": "run time" if store.is_set_here else "configuration",
        "revision": store.revision,
    }


def offer(offer: Offer) -> dict[str, Any]:
    return {
        "capability": text_of(offer.capability),
        "kind": kind_of(offer.capability),
        **asdict(offer.capability),
        "node": {
            "peer_id": offer.peer,
            "name": offer.name,
            "multiaddrs": list(offer.addresses),
            "connected": offer.is_connected,
            "idle": offer.is_idle,
            "own": offer.is_own,
        },
    }


def flags(node: Node) -> dict[str, Any]:
    """The flags in force by name, who set each, and the override. `in_force` is the backend that calls really use."""
    store, dht = node.flags, node.dht
    override = store.current.override
    return {
        "in_force": store.current.in_force,
        "revision": store.revision,
        "flags": store.current.values(),
        "origins": store.origins(),
        "override": override
        and {
            "force": override.force.value,
            "reason": override.reason,
            "author": override.author,
            "since": rfc3339(override.since_ms),
            "expires_at": rfc3339(override.expires_ms),
        },
        "notes": store.notes(),
        "faults": list(store.faults),
        "breaker": None if node.breaker is None else {"state": node.breaker.state.value, "why": node.breaker.why},
        "switches": dht.switches,
        "shadow": {
            "reads": dht.shadow_reads,
            "mismatches": dht.shadow_mismatches,
            "failures": dht.shadow_failures,
            "skipped": dht.shadow_skipped,
        },
    }


def audit(node: Node, lines: Sequence[bytes], *, after: int) -> dict[str, Any]:
    """Lines of the audit log, and the hash of its last line. A node writes only ASCII; other bytes become U+FFFD."""
    return {
        "node": node.peer_id,
        "entries": node.audit.sequence,
        "head": node.audit.head,
        "after": after,
        "lines": [line.decode("utf-8", "replace") for line in lines],
        "faults": list(node.audit.faults),
    }


def health(report: HealthReport) -> dict[str, Any]:
    return {
        "status": report.status,
        "reasons": list(report.reasons),
        "components": [
            {
                "component": each.component,
                "backend": each.backend,
                "status": each.status,
                "last_check": rfc3339(each.last_check_ms),
                "error_count": each.error_count,
                "latency_ms": each.latency_ms,
                "reasons": list(each.reasons),
            }
            for each in report.components
        ],
    }
