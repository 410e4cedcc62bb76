"""A client of one real node: calls its HTTP API, and measures each call."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

_SLACK_SECONDS = 5.0
"""How much longer than its deadline a call may take before the client gives up: a node that works ends it before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReply:
    """A reply, and the milliseconds until it came. Status 0: no reply came, and `problem` says why."""

    status: int
    elapsed_ms: float
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """The data of a success in JSON; {} for anything else."""
        try:
            found = json.loads(self.body)["response"]["data"]
        except (ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def digest(self) -> str:
        """The digest of the version in the reply, in hex."""
        return self.headers.get("UCXL-Digest", "")

    @property
    def version(self) -> int:
        return int(self.headers.get("UCXL-Version", "0"))

    def __str__(self) -> str:
        if self.status == 0:
            return self.problem
        try:
            error = json.loads(self.body)["error"]
            return f"{error['code']}: {error['message']}"
        except (ValueError, KeyError, TypeError):
            return f"HTTP {self.status}, {len(self.body)} bytes"


class NodeClient:
    """One node's API. Several threads may use it; no request is ever repeated."""

    def __init__(self, api: str) -> None:
        self._pool = urllib3.connection_from_url(api, maxsize=8, retries=False)

    def close(self) -> None:
        self._pool.close()

    def put(self, address: str, content: bytes, *, timeout_ms: int | None = None) -> NodeReply:
        fields = {"address": address} | ({"timeout_ms": str(timeout_ms)} if timeout_ms else {})
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return self.call("PUT", "/v1/envelope", fields, headers=headers, timeout_ms=timeout_ms, body=content)

    def get(
        self, address: str, *, consistency: str = "auto", digest: str = "", timeout_ms: int | None = None
    ) -> NodeReply:
        fields = {"address": address, "consistency": consistency}
        if digest:
            fields["digest"] = digest
        if timeout_ms:
            fields["timeout_ms"] = str(timeout_ms)
        return self.call("GET", "/v1/envelope", fields, timeout_ms=timeout_ms)

    def connected_peers(self) -> int:
        """How many other nodes this one is connected to; 0 when it does not answer."""
        peers = self.call("GET", "/v1/peers").data.get("peers", [])
        return sum(1 for peer in peers if peer["connected"] and not peer["suspect"])

    def pending(self) -> int | None:
        """How many hints this node has, those in quarantine included; None when it does not answer."""
        hints = self.call("GET", "/v1/pending").data
        return hints["count"] + hints.get("refused", 0) if "count" in hints else None

    def call(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
        body: bytes | None = None,
    ) -> NodeReply:
        """One request. The client waits a few seconds longer than `timeout_ms`, the deadline in the request itself."""
        query = "?" + urlencode(fields, quote_via=quote) if fields else ""
        seconds = (timeout_ms or 0) / 1000 + _SLACK_SECONDS
        start = time.perf_counter()
        try:
            answer = self._pool.request(method, path + query, body=body, headers=headers, timeout=seconds)
        except urllib3.exceptions.HTTPError as error:
            return NodeReply(
                status=0, elapsed_ms=(time.perf_counter() - start) * 1000, problem=f"{type(error).__name__}: {error}"
            )
        elapsed_ms = (time.perf_counter() - start) * 1000
        return NodeReply(status=answer.status, elapsed_ms=elapsed_ms, body=answer.data, headers=answer.headers)
