"""Request and response of the HTTP API, as its routes see them; the connection reads the one and sends the other."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


async def _nothing_more() -> bool:
    return False


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A request whose head has arrived. Its body may still arrive: see `is_whole` and `receive`."""

    method: str
    path: str
    """Percent-decoded."""
    query: bytes = b""
    """What follows the question mark, as it was sent."""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """By lower-case name; the values of a name that was sent several times are joined by `, `."""
    repeated: frozenset[bytes] = frozenset()
    """The names that were sent several times."""
    pieces: list[bytes] = field(default_factory=list)
    """The body, as far as it has arrived."""
    size_bytes: int = 0
    """How many bytes of the body have arrived."""
    is_whole: bool = True
    """Whether the whole body has arrived."""
    is_kept_alive: bool = True
    """Whether the client may send another request on its connection."""
    receive: Callable[[], Awaitable[bool]] = _nothing_more
    """Waits until more has arrived; False: the connection ended."""
    client: str = ""
    """The address of the client, without its port."""
    id: str = ""
    """Names the request in the log and in the answer; the middleware gives it."""

    @property
    def body(self) -> bytes:
        """The body, as far as it has arrived."""
        if len(self.pieces) != 1:
            self.pieces = [b"".join(self.pieces)]
        return self.pieces[0]


@dataclass(slots=True, eq=False)
class Response:
    """An answer. `headers` are those that its route and the middleware give; `encoded` adds those of the connection."""

    body: bytes = b""
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)

    def encoded(self, *, is_head: bool = False, closes: bool = False, date: str = "") -> bytes:
        """The bytes of the answer. `is_head`: without the body. `closes`: it is the last one of its connection.

        Raises `ValueError` for a header with a line break, which would be the start of another header or answer.
        """
        own = {
            "Content-Length": str(len(self.body)) if self.status != 304 else "",
            "Date": date,
            "Connection": "close" if closes else "",
        }
        lines = [f"HTTP/1.1 {self.status} "]
        lines += [f"{name.lower()}: {value}" for name, value in self.headers]
        lines += [f"{name.lower()}: {value}" for name, value in own.items() if value]
        head = "\r\n".join(lines).encode("utf-8", "replace")
        if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1:
            raise ValueError(f"a header of an answer has a line break: {self.headers!r:.1000}")
        return head + b"\r\n\r\n" if is_head or self.status == 304 else b"%b\r\n\r\n%b" % (head, self.body)
