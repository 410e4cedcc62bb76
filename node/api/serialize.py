"""What the API says, as JSON: the UCXL payload shapes (UCXL.md, section 4) and the node's own values in them.

Digests and signatures are lower-case hex, times RFC 3339 in UTC with milliseconds, durations milliseconds. A version
is 64 bits, which neither JavaScript nor jq can hold as a number without rounding: it is text, in decimal.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from node.dht.base import Provenance, Receipt, VersionHistory
from node.node import Node, PeerStatus
from node.services.observe.health import HealthReport
from node.store.base import Hint, Pending, Version
from protocols import clock
from protocols.envelope import Envelope, Notice
from protocols.errors import BzzzError
from protocols.policy.cache import CacheCounts

SOURCE = "bzzz-node/v1"
PATH_CHARS_MAX = 200
"""What an error repeats of the path that was asked for: an answer is no longer for a question that was."""


def encode(payload: Mapping[str, Any]) -> bytes:
    """JSON as bytes; what UTF-8 cannot carry (half a surrogate in somebody's text) becomes a question mark."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"), default=_plain).encode("utf-8", "replace")


def _exact(value: object) -> object:
    """A whole number that a JavaScript number cannot hold as text; everything else as it is."""
    return str(value) if isinstance(value, int) and abs(value) > 2**53 else value


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


def rfc3339(unix_ms: int) -> str:
    """Unix milliseconds as `2026-08-07T14:30:00.000Z`; the last instant that can be written for anything beyond."""
    try:
        moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.max.replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


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


def receipt(one: Receipt) -> dict[str, Any]:
    return {
        "backend": one.backend.value,
        "durability": one.durability.value,
        "replicated": one.is_replicated,
        "pending": one.quorum > 0 and not one.is_replicated,
        "acknowledged": one.acknowledged,
        "wanted": one.wanted,
        "quorum": one.quorum,
        "elapsed_ms": round(one.elapsed_ms, 3),
        "log": one.log_id,
        "sequence": one.sequence,
        "address": one.address,
        "version": str(one.version),
        "written_at": rfc3339(clock.ms_of(one.version)),
        "digest": one.digest.hex(),
        "parents": [parent.hex() for parent in one.parents],
        "reissued_as": one.reissued_as.hex() if one.reissued_as else None,
    }


def provenance(one: Provenance) -> dict[str, Any]:
    return {
        "backend": one.backend.value,
        "source": one.source,
        "age_ms": None if one.age_ms is None else round(one.age_ms, 3),
        "replicas": one.replicas,
        "siblings": one.siblings,
        "degraded": one.is_degraded,
        "reason": one.reason,
    }


def envelope(one: Envelope) -> dict[str, Any]:
    """All of an envelope. `content` is text when it is UTF-8, else base64: `content_encoding` says which."""
    content, encoding = content_text(one.content)
    return {
        **notice(one),
        "format": list(one.format),
        "content_type": one.content_type,
        "content": content,
        "content_encoding": encoding,
        "size_bytes": len(one.content),
        "meta": dict(one.meta),
        "signature": one.signature.hex(),
    }


def content_text(content: bytes) -> tuple[str, str]:
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return b64encode(content).decode("ascii"), "base64"


def notice(one: Envelope | Notice) -> dict[str, Any]:
    """What is known of a version without its content."""
    return {
        "address": one.address,
        "digest": one.digest.hex(),
        "version": str(one.version),
        "written_at": rfc3339(clock.ms_of(one.version)),
        "author": one.author,
        "deleted": one.deleted,
        "parents": [parent.hex() for parent in one.parents],
    }


def history(one: VersionHistory) -> dict[str, Any]:
    return {
        "versions": [version(each) for each in one.versions],
        "total": one.total,
        "complete": one.is_complete,
        "missing": [digest.hex() for digest in one.missing],
        "provenance": provenance(one.provenance),
    }


def counts(one: CacheCounts) -> dict[str, int]:
    """What the answers that the resolver keeps were good for."""
    return asdict(one)


def version(one: Version) -> dict[str, Any]:
    return {
        "address": one.address,
        "digest": one.digest.hex(),
        "version": str(one.version),
        "written_at": rfc3339(clock.ms_of(one.version)),
        "author": one.author,
        "deleted": one.deleted,
        "parents": [parent.hex() for parent in one.parents],
        "content_type": one.content_type,
        "size_bytes": one.size_bytes,
        "held": one.is_held,
        "head": one.is_head,
        "reissued_as": one.reissued_as.hex() if one.reissued_as else None,
    }


def pending(one: Pending, hints: Sequence[Hint] | None, *, now_ms: int) -> dict[str, Any]:
    """What is owed; with the hints themselves when they were asked for."""
    oldest = None if one.oldest_at_ms is None else max(0, now_ms - one.oldest_at_ms)
    told: dict[str, Any] = {"count": one.count, "oldest_age_ms": oldest, "refused": one.refused}
    if hints is not None:
        told["hints"] = [hint(each, now_ms=now_ms) for each in hints]
    return told


def hint(one: Hint, *, now_ms: int) -> dict[str, Any]:
    return {
        "holder": one.holder,
        "address": one.address,
        "digest": one.digest.hex(),
        "sequence": one.sequence,
        "attempts": one.attempts,
        "next_try": rfc3339(one.next_try_ms) if one.next_try_ms and not one.is_refused else None,
        "refusal": one.refusal,
        "refused": one.is_refused,
        "age_ms": max(0, now_ms - one.at_ms),
    }


def peer(one: PeerStatus) -> dict[str, Any]:
    return {
        "peer_id": one.peer,
        "name": one.name,
        "multiaddrs": list(one.addresses),
        "connected": one.is_connected,
        "suspect": one.is_suspect,
        "last_seen": rfc3339(one.last_seen_ms) if one.last_seen_ms else None,
        "owed": one.owed,
        "clock_offset_ms": one.clock_offset_ms,
        "round_trip_ms": one.round_trip_ms,
    }


def flags(node: Node) -> dict[str, Any]:
    """The flags in force by name, who set each, and the override. `in_force` is the backend that calls really get."""
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
    """Lines of the audit log, and the head it ends in. What is not UTF-8 in a line, nobody's node wrote."""
    return {
        "node": node.peer_id,
        "entries": node.audit.sequence,
        "head": node.audit.head,
        "after": after,
        "lines": [line.decode("utf-8", "replace") for line in lines],
        "faults": list(node.audit.faults),
    }


def health(one: HealthReport) -> dict[str, Any]:
    return {
        "status": one.status,
        "reasons": list(one.reasons),
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
            for each in one.components
        ],
    }
