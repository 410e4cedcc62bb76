"""Cache of verified signatures: a version that comes from several peers is verified once.

An entry is the digest with its signature, so that a forged signature on a known version is still refused. Verifying
takes 50 microseconds, a lookup less than one.
"""

from collections import OrderedDict

from protocols.envelope import verify
from protocols.header import SignedHeader

ENTRIES_MAX = 16_384


class SignatureCache:
    """At most `entries_max` signatures; the oldest entry is evicted first."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._signatures: OrderedDict[bytes, bytes] = OrderedDict()

    def check(self, item: SignedHeader) -> None:
        """Verify an envelope or a notice unless its signature is cached. Raises `BadSignature`."""
        if self._signatures.get(item.digest) == item.signature:
            return
        verify(item)
        if len(self._signatures) >= self._entries_max:
            self._signatures.popitem(last=False)
        self._signatures[item.digest] = item.signature
