"""What was found at an address, and how it leaves: as its content, as its signed bytes, or as JSON.

The content was written by anybody in the swarm and may be looked at in a browser, where this API's own origin can do
everything: so it is served sandboxed, under its own type when that is one, and what its author put into headers goes
out only where it cannot break them.
"""

import re
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from node.api import serialize
from node.api.media import DEFAULT_TYPE, ENVELOPE_TYPE, JSON_TYPE, TOKEN, is_media_type
from node.dht.base import Answer, Provenance
from protocols.envelope import Envelope, Notice
from protocols.errors import NotFound, Unavailable

_HEADER_NAME = re.compile(TOKEN)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundContent:
    """The version to answer with, its siblings, and where they came from."""

    envelope: Envelope
    siblings: tuple[Envelope | Notice, ...]
    provenance: Provenance

    @classmethod
    def of(cls, answer: Answer) -> "FoundContent":
        """The latest head with its content. Raises `NotFound`, or `Unavailable` when only its notice is here."""
        if not answer.heads:
            raise NotFound("nothing has been written there")
        first, *siblings = answer.heads
        if not isinstance(first, Envelope):
            raise Unavailable(
                "this node knows of the version but does not hold its content, and no holder answered; try again",
                digest=first.digest.hex(), address=first.address,
            )  # fmt: skip
        return cls(envelope=first, siblings=tuple(siblings), provenance=answer.provenance)

    def headers(self, form: str) -> dict[str, str]:
        """The headers of every form; JSON also holds what changes from read to read, so its ETag is a weak one."""
        one, where = self.envelope, self.provenance
        tag = f'"{one.digest.hex()}"'
        headers = {
            "ETag": f"W/{tag}" if form == JSON_TYPE else tag,
            "Vary": "Accept",
            "Cache-Control": "no-cache",
            "UCXL-Address": one.address,
            "UCXL-Version": str(one.version),
            "UCXL-Author": one.author,
            "UCXL-Backend": where.backend.value,
            "UCXL-Source": where.source,
            "UCXL-Replicas": str(where.replicas),
            "UCXL-Siblings": str(where.siblings),
            "UCXL-Degraded": "true" if where.is_degraded else "false",
        }
        if where.age_ms is not None:
            headers["UCXL-Age-Ms"] = f"{where.age_ms:.0f}"
        if where.reason:
            headers["UCXL-Reason"] = _in_header(where.reason)
        if one.parents:
            headers["UCXL-Parents"] = ", ".join(parent.hex() for parent in one.parents[:64])
        return headers

    def as_json(self) -> dict[str, Any]:
        return {
            "envelope": serialize.envelope(self.envelope),
            "siblings": [serialize.notice(sibling) for sibling in self.siblings],
            "provenance": serialize.provenance(self.provenance),
        }


def serve_content(found: FoundContent, form: str, headers: dict[str, str]) -> Response:
    """The signed bytes, or the content under its own type with its meta as headers."""
    if form == ENVELOPE_TYPE:
        return Response(found.envelope.encoded, headers={**headers, "Content-Type": ENVELOPE_TYPE})
    media_type = found.envelope.content_type
    response = Response(
        found.envelope.content,
        headers={
            **headers,
            "Content-Type": media_type if is_media_type(media_type) else DEFAULT_TYPE,
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
        },
    )
    response.raw_headers.extend(_meta_headers(found.envelope))
    return response


def _meta_headers(envelope: Envelope) -> list[tuple[bytes, bytes]]:
    """`UCXL-Meta-<name>` for what a header can carry; `UCXL-Omitted-Meta` says how many it cannot (JSON has all)."""
    headers = [
        (f"ucxl-meta-{name.lower()}".encode("ascii"), value.encode("utf-8", "replace"))
        for name, value in envelope.meta.items()
        if _HEADER_NAME.fullmatch(name) and not _UNPRINTABLE.search(value)
    ]
    if len(headers) < len(envelope.meta):
        headers.append((b"ucxl-omitted-meta", str(len(envelope.meta) - len(headers)).encode("ascii")))
    return headers


def _in_header(text: str) -> str:
    """Words of ours as a header can carry them."""
    return _UNPRINTABLE.sub(" ", text).encode("ascii", "replace").decode("ascii")
