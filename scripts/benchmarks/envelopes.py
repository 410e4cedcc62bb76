"""Ready, verified envelopes to measure with."""

from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey

KEY = PrivateKey.from_seed(b"\x01" * 32)
START_MS = 1_700_000_000_000


def ready(count: int, *, size_bytes: int = 256, run: str = "0") -> list[Envelope]:
    """First versions of so many things."""
    content = bytes(size_bytes)
    return [
        seal(
            KEY,
            address=f"ucxl://bench:writer@bzzz:{run}/*^/{number}",
            content=content,
            content_type="application/octet-stream",
            version=version(START_MS + number, 0),
            parents=(),
        )
        for number in range(count)
    ]
