"""Staged envelopes: kept durably, but not versions yet, while a write of the `real` backend waits for its quorum."""

from typing import Protocol

from protocols.envelope import Envelope


class StagedEnvelopes(Protocol):
    """A staged envelope is no head, has no hints and is not in the log."""

    async def stage(self, envelope: Envelope, *, idempotency_key: str | None = None, now_ms: int) -> None:
        """Keep an envelope until it is merged or unstaged, and for `log.IDEMPOTENCY_MS` at least."""
        ...

    async def staged_under(self, idempotency_key: str) -> Envelope | None:
        """The envelope that was staged last under this key, if it is still staged."""
        ...

    async def unstage(self, digest: bytes) -> None: ...
