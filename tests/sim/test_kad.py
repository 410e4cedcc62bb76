"""The DHT's messages in the virtual network: answers find their questions whatever the links do."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from netsim.virtual.links import Link
from netsim.virtual.network import VirtualNetwork
from netsim.virtual.scheduler import run_virtual
from netsim.virtual.trace import Trace
from node.swarm.base import DialFailed, KadFailed, Lane
from protocols.errors import Malformed
from tests.until import until


class Receiver:
    """A `Receiver` that ignores all calls."""

    def connected(self, peer: str, address: str, dialled: bool) -> None: ...

    def disconnected(self, peer: str, reason: str) -> None: ...

    def received(self, peer: str, lane: Lane, frame: bytes) -> None: ...


class Answerer:
    """Answers each message with itself, but for those that begin with 'add' (no answer) or 'bad' (refused)."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.found_peers: dict[str, tuple[str, ...]] = {}

    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        self.found_peers[peer] = addresses

    def stopped(self, peer: str) -> None: ...

    async def answer(self, peer: str, remote: str, message: bytes) -> bytes | None:
        self.asked.append(message)
        await trio.sleep(0.01)
        if message.startswith(b"bad"):
            raise Malformed("it is bad")
        return None if message.startswith(b"add") else message


class Two:
    """Two endpoints that speak the protocol, the first of which has dialled the second."""

    def __init__(self, seed: int, link: Link | None = None) -> None:
        self.net = VirtualNetwork(seed, Trace(), link=link)
        self.answerers = (Answerer(), Answerer())
        self.one, self.two = (self.net.attach(peer) for peer in ("one", "two"))

    async def start(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.net.run)
        for endpoint, answerer in zip((self.one, self.two), self.answerers, strict=True):
            endpoint.kad.attach(answerer)
            await nursery.start(endpoint.run, Receiver())
        assert await self.one.dial([self.two.address], timeout=5) == "two"


def over(story: Callable[[Two], Awaitable[None]], *, link: Link | None = None) -> None:
    async def program() -> None:
        async with trio.open_nursery() as nursery:
            two = Two(7, link)
            await two.start(nursery)
            await story(two)
            nursery.cancel_scope.cancel()

    run_virtual(7, program)


def test_each_side_learns_that_the_other_speaks_it_and_answers_it() -> None:
    async def story(two: Two) -> None:
        one, other = two.answerers
        await until(lambda: one.found_peers and other.found_peers)
        assert one.found_peers == {"two": (two.two.address,)}
        assert other.found_peers == {"one": (two.one.address,)}
        assert await two.two.kad.ask("one", b"question") == b"question"
        assert await two.one.kad.ask("two", b"add", b"ping") == b"ping"
        assert other.asked == [b"add", b"ping"]
        with pytest.raises(KadFailed, match="it is bad"):
            await two.one.kad.ask("two", b"bad")

    over(story)


def test_answers_that_come_late_or_twice_reach_no_other_question() -> None:
    async def story(two: Two) -> None:
        async def ask(number: int) -> None:
            question = b"%d" % number
            with trio.move_on_after(5):
                assert await two.one.kad.ask("two", question) == question
                answered.append(number)

        answered: list[int] = []
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(ask, number)
        assert 10 < len(answered) < 60, "some were lost, and never waited for without end"

    over(story, link=Link(loss=0.2, duplication=0.3, reordering=0.3))


def test_the_end_of_a_connection_fails_what_is_under_way() -> None:
    async def story(two: Two) -> None:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(KadFailed, match="ended"):
                    await two.one.kad.ask("two", b"question")

            nursery.start_soon(ask)
            await trio.sleep(0.002)
            two.one.disconnect("two", "a test")
        with pytest.raises(KadFailed, match="not connected"):
            await two.one.kad.ask("two", b"question")
        await two.one.kad.connect("two", [two.two.address], timeout=5)
        assert await two.one.kad.ask("two", b"again") == b"again"
        with pytest.raises(DialFailed):
            await two.one.kad.connect("three", [two.two.address], timeout=1)

    over(story)


def test_an_endpoint_that_does_not_speak_it_is_not_found_and_does_not_answer() -> None:
    async def program() -> None:
        async with trio.open_nursery() as nursery:
            net, answerer = VirtualNetwork(7, Trace()), Answerer()
            await nursery.start(net.run)
            one, mute = net.attach("one"), net.attach("mute")
            one.kad.attach(answerer)
            for endpoint in (one, mute):
                await nursery.start(endpoint.run, Receiver())
            await one.dial([mute.address], timeout=5)
            with pytest.raises(KadFailed, match="ended"):
                await one.kad.ask("mute", b"question")
            assert not answerer.found_peers
            nursery.cancel_scope.cancel()

    run_virtual(7, program)
