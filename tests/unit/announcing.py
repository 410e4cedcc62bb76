"""The surroundings of an announce finder under test."""

from collections.abc import Callable

import trio

from discovery.announce import AnnounceFinder
from protocols.announce import Announcement, decode
from protocols.errors import Unavailable
from protocols.keys import PrivateKey

OWN = PrivateKey.from_seed(b"\x01" * 32)
START_MS = 1_754_576_000_000


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1000)


class FakeSwarm:
    """What the finder asks of its node; the test says who is a member and whose clock is off."""

    def __init__(self) -> None:
        self.published: list[Announcement] = []
        self.refused: list[tuple[str, str]] = []
        """The counter, and the source that was blamed, '' for none."""
        self.members: set[str] = set()
        self.denied: set[str] = set()
        self.gone: set[str] = set()
        self.alive: list[str] = []
        self.offsets: dict[str, float] = {}
        self.is_down = False
        self.received: Callable[[str, bytes, str], bool | None] | None = None

    def subscribe(self, received: Callable[[str, bytes, str], bool | None]) -> None:
        assert self.received is None
        self.received = received

    async def publish(self, data: bytes) -> None:
        if self.is_down:
            raise Unavailable("the host does not run")
        self.published.append(decode(data))

    def is_listed(self, peer: str) -> bool:
        return peer not in self.denied

    def is_member(self, peer: str) -> bool:
        return peer in self.members

    def is_gone(self, peer: str) -> bool:
        return peer in self.gone

    def note_alive(self, peer: str) -> None:
        self.alive.append(peer)

    def clock_offset_ms(self, peer: str) -> float:
        return self.offsets.get(peer, 0.0)

    def count(self, kind: str) -> None:
        self.refused.append((kind, ""))

    def refuse(self, kind: str, source: str, what: str, *, is_offence: bool = False) -> None:
        assert what.isprintable()
        self.refused.append((kind, source if is_offence else ""))


class FakeNode:
    """The `ThisNode` of a test."""

    peer_id = OWN.peer_id
    name = "ada"
    network = "bzzz"
    agent = "bzzz/1"

    def __init__(self) -> None:
        self.told: tuple[str, ...] = (f"/ip4/192.0.2.1/tcp/4001/p2p/{OWN.peer_id}",)
        self._changed = trio.Event()

    def addresses(self, *, on_this_machine: bool = False) -> tuple[str, ...]:
        return self.told

    async def changed(self) -> None:
        await self._changed.wait()

    def move(self, *addresses: str) -> None:
        self.told = addresses
        self._changed.set()
        self._changed = trio.Event()


def silent_finder() -> AnnounceFinder:
    """A finder of a node that nobody else is on the topic with."""
    return AnnounceFinder(OWN, FakeNode(), FakeSwarm(), capabilities=tuple, now_ms=now_ms, chance=lambda: 0.0)
