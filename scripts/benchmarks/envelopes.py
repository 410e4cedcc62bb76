"""Signed envelopes to measure with."""

from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey

KEY = PrivateKey.from_seed(b"\x01" * 32)
START_MS = 1_700_000_000_000


def ready(count: int, *, size_bytes: int = 256, run: str = "0") -> list[Envelope]:
    """The first versions of `count` addresses, the same at each call."""
    return sealed(KEY, count, size_bytes=size_bytes, run=run, start_ms=START_MS)


def sealed(key: PrivateKey, count: int, *, size_bytes: int = 256, run: str, start_ms: int) -> list[Envelope]:
    """The first versions of `count` addresses by this author, from this moment on, each with a content of its own."""
    return [
        seal(
            key,
            address=f"ucxl://bench:writer@bzzz:{run}/*^/{number}",
            content=b"%d" % number + bytes(size_bytes - len(str(number))),
            content_type="application/octet-stream",
            version=version(start_ms + number // 65536, number % 65536),
            parents=(),
        )
        for number in range(count)
    ]
