"""The least of an HTTP client: one request, one answer, one connection, and a deadline round it all."""

import trio

from attacks.connections import Fell, line


def request(
    path: str = "/health", *, method: str = "GET", host: str = "127.0.0.1", headers: str = "", body: bytes = b""
) -> bytes:
    """A request. `headers` are whole lines, each with its end."""
    length = f"Content-Length: {len(body)}\r\n" if body or method in ("PUT", "POST") else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{headers}\r\n".encode() + body


def status_of(answer: bytes) -> int:
    """The status of the first answer in these bytes; 0 when they are none."""
    words = answer[:16].split(b" ")
    return int(words[1]) if len(words) > 1 and words[0] == b"HTTP/1.1" and words[1].isdigit() else 0


async def get(api: tuple[str, int], path: str, *, seconds: float) -> tuple[int, bytes]:
    """Status and body. Raises `Fell` when there is no whole answer in time."""
    with trio.move_on_after(seconds):
        async with line(api) as connection:
            await connection.send(request(path, headers="Connection: close\r\n"))
            answer = await connection.until_closed(seconds)
            if status := status_of(answer):
                return status, answer.partition(b"\r\n\r\n")[2]
            raise Fell(f"the API hung up on GET {path}")
    raise Fell(f"the API did not answer GET {path} within {seconds:g} s")
