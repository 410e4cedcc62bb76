"""A minimal HTTP client: one request on one connection, with a deadline for the whole."""

import trio

from attacks.connections import TargetFailed, connection


def request(
    path: str = "/health", *, method: str = "GET", host: str = "127.0.0.1", headers: str = "", body: bytes = b""
) -> bytes:
    """The bytes of a request. `headers` are whole lines, each with its line end."""
    length = f"Content-Length: {len(body)}\r\n" if body or method in ("PUT", "POST") else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{headers}\r\n".encode() + body


def status_of(answer: bytes) -> int:
    """The status of the first answer in these bytes; 0 when they hold none."""
    words = answer[:16].split(b" ")
    return int(words[1]) if len(words) > 1 and words[0] == b"HTTP/1.1" and words[1].isdigit() else 0


async def exchange(api: tuple[str, int], data: bytes, *, seconds: float) -> bytes:
    """The whole answer to a request that ends its connection. Raises `TargetFailed` when none comes in time."""
    line = data.partition(b" HTTP/1.1\r\n")[0].decode(errors="replace")[:200]
    with trio.move_on_after(seconds):
        async with connection(api) as opened:
            await opened.send(data)
            answer = await opened.until_closed(seconds)
            if status_of(answer):
                return answer
            raise TargetFailed(f"the API hung up on {line}")
    raise TargetFailed(f"the API did not answer {line} within {seconds:g} s")


async def get(api: tuple[str, int], path: str, *, seconds: float) -> tuple[int, bytes]:
    """Status and body. Raises `TargetFailed` when no whole answer comes in time."""
    answer = await exchange(api, request(path, headers="Connection: close\r\n"), seconds=seconds)
    return status_of(answer), answer.partition(b"\r\n\r\n")[2]
