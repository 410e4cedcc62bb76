"""What a finder is: something that sees peers, and says so.

Many finders, one book: whatever they see goes to `protocols/peers.py` as a `Sighted`, with its source, and that decides
whom to dial and when. A finder never dials, and never knows who is connected.
"""

from collections.abc import Callable
from typing import Protocol

from protocols.peers import Sighted

Sight = Callable[[Sighted], None]
"""Told of every sighting, on the trio thread; quick, and does not raise. The same peer may come again."""


class Finder(Protocol):
    """One way of seeing peers. Run by the node as a task of its own; what it raises ends the node."""

    async def run(self, sight: Sight) -> None:
        """Say what is seen, until cancelled; a finder that has said all it will ever see may return."""
        ...
