"""Checks the envelopes that peers send to be merged, whichever protocol they come by."""

from collections.abc import Callable
from typing import Final

from protocols.clock import check_not_ahead
from protocols.envelope import Envelope, decode
from protocols.errors import BadSignature, Malformed, TooLarge
from protocols.policy.signature_cache import SignatureCache

FORGED: Final = (BadSignature, Malformed, TooLarge)
"""The errors of an envelope that no author can have signed like that: who sent it is blamed."""


class EnvelopeInspector:
    def __init__(self, verified: SignatureCache, now_ms: Callable[[], int]) -> None:
        self._verified = verified
        self._now_ms = now_ms

    def inspect(self, encoded: bytes) -> Envelope:
        """The envelope in these bytes: structure, content, signature and clock are right. Raises a `BzzzError`."""
        envelope = decode(encoded)
        self._verified.check(envelope)
        check_not_ahead(envelope.version, self._now_ms())
        return envelope
