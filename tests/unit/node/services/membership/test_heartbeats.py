"""Heartbeats: one exchange tells both ends the same, and nobody takes what is told for younger than it is."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from node.services.membership.heartbeats import ECHO_SECONDS_MAX, LONG_MS, Heartbeats
from node.services.membership.log_continuity import LogContinuity
from node.services.membership.peer_log import PeerLog
from node.services.membership.stored_members import StoredMembers
from node.store.log import Incoming, Origin
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.envelope import seal
from protocols.errors import Unavailable
from protocols.keys import PrivateKey
from protocols.messages import Ping, Pong, Reply, Request
from protocols.policy.failure_detector import Event, PingReceived, PongReceived
from tests.unit.one_end import OneEnd, rpc_over

NOW = 1_800_000_000_000
ENVELOPE = seal(
    PrivateKey.from_seed(bytes(32)),
    address="ucxl://a:r@p:t/*^/x", content=b"x", content_type="text/plain", version=1, parents=(),
)  # fmt: skip


class Service:
    """Hands pings of peers to the heartbeats."""

    def __init__(self) -> None:
        self.heartbeats: Heartbeats | None = None

    def nothing(self, *_: object) -> None: ...

    connected = disconnected = heard = missed = nothing

    def is_idle(self, peer: str) -> bool:
        return False

    async def connect_idle(self, peer: str) -> str:
        return "it is not dialled in this test"

    def serve(self, peer: str, request: Request, trace: str) -> Any:
        assert isinstance(request, Ping)
        assert self.heartbeats is not None
        return self.heartbeats.answer(peer, request)


class Here:
    """A node with one member, 'a', which the test plays. Its wall clock is `clock_ms` ahead."""

    def __init__(self, net: OneEnd, rpc: Rpc, store: MemoryStore) -> None:
        self.net, self.store = net, store
        self.knows_hints = True
        self.clock_ms = 0
        self.events: list[Event] = []
        self.members = Members("own", replication=20)
        self.presence = self.members.put(Member(peer="a", name="a", addresses=(), first_seen_ms=0, last_seen_ms=NOW))
        self.presence.is_connected = True
        self.rpc = rpc
        self.heartbeats = Heartbeats(
            rpc=rpc,
            members=self.members,
            store=store,
            stored=StoredMembers(store, self.members, rpc.peer_policy, PeerLog(), lambda *_: None),
            log_continuity=LogContinuity(store, self.members, now_ms=self.now_ms),
            knows_hints=lambda _: self.knows_hints,
            now_ms=self.now_ms,
            detected=self.events.append,
        )
        self._number = 0

    def now_ms(self) -> int:
        return NOW + self.clock_ms + int(trio.current_time() * 1000.0)

    async def pong(self, ping: Ping | None = None) -> Pong:
        """What the node answers to a ping."""
        self._number += 1
        self.net.ask("a", self._number, ping or Ping())
        await trio.testing.wait_all_tasks_blocked()
        reply: Reply = dict(self.net.replies("a"))[self._number]
        assert isinstance(reply, Pong)
        return reply


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    store, net, service = MemoryStore(log_id="00112233445566aa"), OneEnd(), Service()
    async with trio.open_nursery() as nursery, rpc_over(net, service) as rpc:
        await nursery.start(store.run)
        node = Here(net, rpc, store)
        service.heartbeats = node.heartbeats
        net.come("a")
        yield node
        nursery.cancel_scope.cancel()


async def sent_ping(here: Here) -> Ping:
    """The ping that is sent to `a`, which does not answer it."""
    with trio.move_on_after(0.1):
        await here.heartbeats.ping("a")
    ping = here.net.sent[-1].frame.message
    assert isinstance(ping, Ping)
    return ping


async def test_a_ping_that_echoes_the_last_pong_serves_its_receiver_as_a_pong_would(
    here: Here, autojump_clock: trio.testing.MockClock
) -> None:
    echoed = await here.pong()
    began = trio.current_time()
    await trio.sleep(4.0)
    view = here.members.view()
    await here.pong(Ping(here.now_ms() + 7_000, 0, 0, 12, view, echoed.now_ms, 3_900_000))
    presence = here.presence
    assert here.events == [PingReceived("a")]
    assert presence.round_trip_seconds == pytest.approx(0.1), "what of the four seconds passed on the way"
    assert presence.caught_up_at == pytest.approx(began + 3.9), "when it had heard the pong so long ago"
    assert presence.clock_offset_ms == pytest.approx(7_050, abs=2)
    assert presence.view == view
    assert here.rpc.round_trips.median("a") == pytest.approx(0.1)


async def test_the_hints_in_a_ping_count_from_the_age_that_it_can_have(
    here: Here, autojump_clock: trio.testing.MockClock
) -> None:
    echoed = await here.pong()
    began = trio.current_time()
    await trio.sleep(4.0)
    await here.pong(Ping(here.now_ms(), 3, 1_500, 0, b"", echoed.now_ms, 4_000_000))
    assert here.presence.caught_up_at == pytest.approx(began + 4.0 - 1.5)


@pytest.mark.parametrize(
    ("heard_ms", "heard_ago_us", "waited"),
    [
        (0, 0, 4.0),  # it has heard nothing yet, or tells nothing: it is of an earlier release
        (-1, 0, 4.0),  # a heartbeat that was never sent
        (NOW, 1_000_000, 4.0),  # it was three seconds on the way: what it tells may be as old
        (NOW, 7_000_000, ECHO_SECONDS_MAX + 1.0),  # what this node has sent since did not arrive
    ],
)
async def test_a_ping_whose_age_is_not_known_or_too_great_serves_nobody(
    heard_ms: int, heard_ago_us: int, waited: float, here: Here, autojump_clock: trio.testing.MockClock
) -> None:
    echoed = await here.pong()
    await trio.sleep(waited)
    named = {0: 0, -1: echoed.now_ms + 1}.get(heard_ms, echoed.now_ms)
    await here.pong(Ping(here.now_ms(), 0, 0, 0, b"", named, heard_ago_us))
    assert here.events == []
    assert here.presence.caught_up_at is None


@pytest.mark.parametrize("heard_ago_us", [5_000_000, (1 << 63) - 1])
async def test_a_lie_about_the_echo_makes_nothing_younger_than_now(
    heard_ago_us: int, here: Here, autojump_clock: trio.testing.MockClock
) -> None:
    echoed = await here.pong()
    await trio.sleep(4.0)
    await here.pong(Ping(here.now_ms(), 0, 0, 0, b"", echoed.now_ms, heard_ago_us))
    assert here.presence.caught_up_at == trio.current_time()
    assert here.presence.round_trip_seconds == 0.0


async def test_a_wall_clock_that_is_set_changes_no_age(here: Here, autojump_clock: trio.testing.MockClock) -> None:
    echoed = await here.pong()
    began = trio.current_time()
    here.clock_ms = -3_600_000
    await trio.sleep(4.0)
    await here.pong(Ping(here.now_ms(), 0, 0, 0, b"", echoed.now_ms, 3_999_000))
    assert here.presence.caught_up_at == pytest.approx(began + 3.999)


async def test_of_many_heartbeats_the_latest_are_remembered_and_none_after_the_connection(
    here: Here, autojump_clock: trio.testing.MockClock
) -> None:
    pongs = []
    for _ in range(20):
        pongs.append(await here.pong())
        await trio.sleep(0.01)
    await here.pong(Ping(here.now_ms(), 0, 0, 0, b"", pongs[0].now_ms, 0))
    assert here.events == []
    await here.pong(Ping(here.now_ms(), 0, 0, 0, b"", pongs[-1].now_ms, 0))
    assert here.events == [PingReceived("a")]
    here.heartbeats.forget("a")
    await here.pong(Ping(here.now_ms(), 0, 0, 0, b"", pongs[-1].now_ms, 0))
    assert here.events == [PingReceived("a")]


async def test_a_ping_of_this_node_echoes_what_it_heard_last(
    here: Here, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.heartbeats.ping, "a")
        await trio.testing.wait_all_tasks_blocked()
        first = here.net.sent[-1].frame
        assert first.message == Ping(here.now_ms(), 0, 0, 0, here.members.view(), 0, 0)
        started = trio.current_time()
        await trio.sleep(0.2)
        here.net.answer("a", first.id, Pong(555, 0, 0))
    assert here.events == [PongReceived("a")]
    assert here.presence.caught_up_at == started
    assert here.presence.round_trip_seconds == pytest.approx(0.2)
    await trio.sleep(3.0)
    second = await sent_ping(here)
    assert second.heard_ms == 555
    assert second.heard_ago_us == pytest.approx(3_000_000, abs=2)


async def test_no_heartbeat_says_that_nothing_is_owed_before_that_is_known(
    here: Here, autojump_clock: trio.testing.MockClock
) -> None:
    view = here.members.view()
    assert await here.pong() == Pong(here.now_ms(), 0, 0, 0, view)
    here.knows_hints = False
    assert await here.pong() == Pong(here.now_ms(), 1, LONG_MS, 0, view)
    ping = await sent_ping(here)
    assert (ping.hints, ping.oldest_hint_ms) == (1, LONG_MS)


async def test_a_heartbeat_tells_the_age_of_the_oldest_hint(here: Here, autojump_clock: trio.testing.MockClock) -> None:
    await here.store.merge([Incoming(ENVELOPE, Origin.LOCAL, holders=("a",))], now_ms=here.now_ms())
    await trio.sleep(2.0)
    ping = await sent_ping(here)
    assert ping.hints == 1
    assert ping.oldest_hint_ms == pytest.approx(2_000, abs=10)


async def test_a_store_that_fails_keeps_no_heartbeat_from_being_sent(
    here: Here, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> list[object]:
        raise Unavailable("the disk failed")

    await here.store.merge([Incoming(ENVELOPE, Origin.LOCAL, holders=("a",))], now_ms=here.now_ms())
    monkeypatch.setattr(here.store, "due_hints", fail)
    assert (await here.pong()).oldest_hint_ms == LONG_MS
    ping = await sent_ping(here)
    assert (ping.hints, ping.oldest_hint_ms) == (1, LONG_MS)
