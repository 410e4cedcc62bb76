"""The contract between the hybrid backend and hinted handoff: a merged write is offered, and may be sent at once."""

from typing import NamedTuple, Protocol

from protocols.envelope import Envelope


class HandoffResult(NamedTuple):
    """What hinted handoff does with a write."""

    holders: tuple[str, ...]
    """The holders that it is on its way to. The others cannot be reached, or deliveries to them are paused."""
    is_next: bool
    """Whether little or nothing waits before it at one of them: then the silence of that holder proves something."""


class Handoff(Protocol):
    """Hinted handoff as the hybrid backend sees it. Returns at once, and raises nothing."""

    def __call__(
        self, sequence: int, envelope: Envelope | None, holders: tuple[str, ...], *, is_first: bool
    ) -> HandoffResult:
        """Offer a merged write: the envelope if it is new here, and whether it is the only version of its address here.

        Nothing has to reach the holders before a version that `is_first`.
        """
        ...


def offer_nothing(*_: object, **__: object) -> HandoffResult:
    """The `Handoff` while deliveries are switched off: hints are kept until the flags allow them again."""
    return HandoffResult((), False)
