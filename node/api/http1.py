"""HTTP/1.1 of one connection: makes requests of the bytes that a client sends. It reads no socket and no clock.

llhttp, the parser of Node.js, reads the bytes (by httptools). It refuses what a proxy before the node could read in
another way (request smuggling): a length that is doubled or stands beside a `Transfer-Encoding`, line breaks that are
not CR LF, folded headers, spaces before a colon. What llhttp leaves to its user is done here: limits of size, the
version, one `Host`, `chunked` as the only transfer coding, no `CONNECT`. A request to upgrade to another protocol is
answered in HTTP/1.1, as RFC 9110 (7.8) allows.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import httptools

from node.api.limits import HEADERS_BYTES_MAX
from node.api.request import Request
from protocols.errors import InvalidPayload

_TOO_LONG = "the request cannot be read: its headers are too long"
_NONE: frozenset[bytes] = frozenset()


class Http1:
    """Give it what a client sends with `feed`, and take requests from `requests`."""

    def __init__(self, receive: Callable[[], Awaitable[bool]], client: str = "") -> None:
        """`receive` and `client` are those of each request."""
        self.requests: deque[Request] = deque()
        """Requests whose heads have arrived, in order. The last one may lack a part of its body."""
        self.refusal: InvalidPayload | None = None
        """Why nothing can be read after `requests`."""
        self.has_part = False
        """Whether a part of a head has arrived."""
        self._receive = receive
        self._client = client
        self._parser = httptools.HttpRequestParser(self)
        self._method = self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._idle_bytes = 0
        """Bytes that were fed since the last piece of a body, or end of a request."""
        self._unfinished: Request | None = None
        """The request whose body arrives."""
        self._is_upgrade = False

    @property
    def has_more(self) -> bool:
        """Whether anything has arrived after the requests that were taken."""
        return bool(self.requests) or self.has_part

    def feed(self, data: bytes) -> None:
        """Read what arrived. After a refusal nothing is read."""
        self._idle_bytes += len(data)
        try:
            while data and self.refusal is None:
                try:
                    self._parser.feed_data(data)
                    data = b""
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._head_without_upgrade() + data[upgrade.args[0] :]
            if self._idle_bytes > HEADERS_BYTES_MAX:  # also of a head, a trailer or an extension that never ends
                self.refusal = InvalidPayload(_TOO_LONG)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, InvalidPayload):
                raise
            self.refusal = error.__context__
        except httptools.HttpParserError as error:
            self.refusal = InvalidPayload(f"the request cannot be read, it is not HTTP/1.1: {error}")

    def _head_without_upgrade(self) -> bytes:
        """The head of a request to upgrade, without its `Upgrade`, for a new parser: llhttp reads no body after one."""
        self._parser, self._is_upgrade = httptools.HttpRequestParser(self), False
        lines = [b"%b: %b\r\n" % (name, value) for name, value in self._headers if name != b"upgrade"]
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (self._method, self._url, b"".join(lines))

    # -- what llhttp calls ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.has_part = True
        self._url, self._headers, self._head_bytes = b"", [], 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._unfinished is None:  # otherwise it is a trailer, which no route reads
            self._count(len(name) + len(value) + 4)
            self._headers.append((name.lower(), value.strip(b" \t")))

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > HEADERS_BYTES_MAX:
            raise InvalidPayload(_TOO_LONG)

    def on_headers_complete(self) -> None:
        self._method = self._parser.get_method()
        headers, repeated = dict(self._headers), _NONE
        if len(headers) < len(self._headers):
            headers, repeated = _joined(self._headers)
        version = self._parser.get_http_version()
        self._check(version, headers, repeated)
        if self._parser.should_upgrade():
            self._is_upgrade = True  # the same head comes again
            return
        path, _, query = self._url.partition(b"?")
        self.has_part = False
        self._unfinished = request = Request(
            method=self._method.decode("ascii"),
            path=unquote(path.decode("latin-1")),
            query=query,
            headers=headers,
            repeated=repeated,
            is_whole=False,
            is_kept_alive=version == "1.1" and self._parser.should_keep_alive(),
            receive=self._receive,
            client=self._client,
        )
        self.requests.append(request)

    def _check(self, version: str, headers: dict[bytes, bytes], repeated: frozenset[bytes]) -> None:
        """Refuse a head that llhttp accepts. Raises `InvalidPayload`."""
        why = ""
        if version not in ("1.1", "1.0"):
            why = f"its version is HTTP/{version}, and this server speaks HTTP/1.1"
        elif b"host" in repeated or (version == "1.1" and b"host" not in headers):
            why = "it must have one Host"
        elif (coding := headers.get(b"transfer-encoding")) is not None and (
            coding.lower() != b"chunked" or version == "1.0" or b"content-length" in headers
        ):
            why = "the only Transfer-Encoding is chunked, without a Content-Length"
        elif self._method == b"CONNECT":
            why = "CONNECT is for proxies, and this server is none"
        if why:
            raise InvalidPayload(f"the request cannot be read: {why}")

    def on_body(self, piece: bytes) -> None:
        self._idle_bytes = 0
        if self._unfinished is not None:
            self._unfinished.pieces.append(piece)
            self._unfinished.size_bytes += len(piece)

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        self._idle_bytes = 0
        if self._unfinished is not None:
            self._unfinished.is_whole = True
            self._unfinished = None


def _joined(pairs: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], frozenset[bytes]]:
    """The headers by name, with the values of each name joined, and the names that appear several times."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        headers[name] = b"%b, %b" % (headers[name], value) if name in headers else value
    counts = Counter(name for name, _ in pairs)
    return headers, frozenset(name for name, count in counts.items() if count > 1)
