"""The answer to a read, in three forms: the content itself, the signed envelope, or JSON.

Any member of the swarm may have written the content, and a browser may show it under this API's own origin, which may
call every route. So the content is served in a sandbox, under its own media type only if that is a valid one, and
`meta` becomes headers only where a header can carry it.
"""

import re
from dataclasses import dataclass
from typing import Any

from node.api import serialize
from node.api.headers import head_tag
from node.api.media import DEFAULT_TYPE, ENVELOPE_TYPE, JSON_TYPE, TOKEN, is_media_type
from node.api.request import Response
from node.dht.base import Answer, Provenance
from node.services.reads.resolver import that_fit
from protocols.envelope import Envelope, Notice
from protocols.errors import NotFound, Unavailable

_HEADER_NAME = re.compile(TOKEN)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
SIBLINGS_SHOWN_MAX = 256
"""Siblings in an answer in JSON at most: as many as one write can have as parents."""
PARENTS_SHOWN_MAX = 64
"""Digests in the header `UCXL-Parents` at most; JSON has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """The version that answers a read, its siblings, and where they came from."""

    envelope: Envelope
    siblings: tuple[Envelope | Notice, ...]
    provenance: Provenance
    without_content: tuple[Notice, ...] = ()

    @classmethod
    def of(cls, answer: Answer) -> "ServedVersion":
        """Take the latest head with its content. Raises `NotFound`, or `Unavailable` when only its notice is here."""
        if not answer.heads:
            raise NotFound("nothing has been written there")
        first, *siblings = answer.heads
        if not isinstance(first, Envelope):
            raise Unavailable(
                "this node knows of the version but does not hold its content, and no holder answered; try again",
                digest=first.digest.hex(), address=first.address,
            )  # fmt: skip
        return cls(
            envelope=first,
            siblings=tuple(siblings),
            provenance=answer.provenance,
            without_content=answer.without_content,
        )

    @property
    def tag(self) -> str:
        """The ETag, without quotes: it names all heads that the reader is given."""
        return head_tag([self.envelope.digest, *(sibling.digest for sibling in self.siblings)])

    def headers(self, form: str) -> dict[str, str]:
        """The headers of every form. JSON also has values that differ between two reads, so its ETag is weak."""
        envelope, provenance = self.envelope, self.provenance
        tag = f'"{self.tag}"'
        headers = {
            "ETag": f"W/{tag}" if form == JSON_TYPE else tag,
            "Vary": "Accept",
            "Cache-Control": "no-cache",
            "UCXL-Address": envelope.address,
            "UCXL-Digest": envelope.digest.hex(),
            "UCXL-Version": str(envelope.version),
            "UCXL-Author": envelope.author,
            "UCXL-Backend": provenance.backend.value,
            "UCXL-Source": provenance.source,
            "UCXL-Replicas": str(provenance.replicas),
            "UCXL-Siblings": str(provenance.siblings),
            "UCXL-Degraded": "true" if provenance.is_degraded else "false",
        }
        if provenance.age_ms is not None:
            headers["UCXL-Age-Ms"] = f"{provenance.age_ms:.0f}"
        if provenance.reason:
            headers["UCXL-Reason"] = _header_text(provenance.reason)
        if (name := serialize.cid_of(envelope)) is not None:
            headers["UCXL-CID"] = name
        if envelope.parents:
            headers["UCXL-Parents"] = ", ".join(parent.hex() for parent in envelope.parents[:PARENTS_SHOWN_MAX])
        return headers

    def as_json(self) -> dict[str, Any]:
        """All of it; of very many siblings the latest, and the provenance has their number."""
        siblings = that_fit(self.siblings[:SIBLINGS_SHOWN_MAX])
        without_content = that_fit(self.without_content[:SIBLINGS_SHOWN_MAX])
        return {
            "envelope": serialize.envelope(self.envelope),
            "siblings": [serialize.notice(sibling) for sibling in siblings],
            "without_content": [serialize.notice(version) for version in without_content],
            "provenance": serialize.provenance(self.provenance),
        }


def serve_content(found: ServedVersion, form: str, headers: dict[str, str]) -> Response:
    """Answer with the signed envelope, or with the content under its own media type and its meta as headers."""
    if form == ENVELOPE_TYPE:
        return Response(found.envelope.encoded, headers=[*headers.items(), ("Content-Type", ENVELOPE_TYPE)])
    own = content_headers(found.envelope.content_type)
    return Response(found.envelope.content, headers=[*headers.items(), *own.items(), *_meta_headers(found.envelope)])


def content_headers(content_type: str) -> dict[str, str]:
    """The headers of raw content, whose author gave it this type."""
    return {
        "Content-Type": content_type if is_media_type(content_type) else DEFAULT_TYPE,
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def _meta_headers(envelope: Envelope) -> list[tuple[str, str]]:
    """`UCXL-Meta-<name>` for what a header can carry; `UCXL-Omitted-Meta` counts the rest (JSON has all)."""
    headers = [
        (f"UCXL-Meta-{name}", value)
        for name, value in envelope.meta.items()
        if _HEADER_NAME.fullmatch(name) and not _UNPRINTABLE.search(value)
    ]
    if len(headers) < len(envelope.meta):
        headers.append(("UCXL-Omitted-Meta", str(len(envelope.meta) - len(headers))))
    return headers


def _header_text(text: str) -> str:
    """Text as a header can carry it: ASCII without control characters."""
    return _UNPRINTABLE.sub(" ", text).encode("ascii", "replace").decode("ascii")
