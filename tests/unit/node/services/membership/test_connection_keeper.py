"""The connection keeper: it does nothing in a small swarm; in a large one connections that are not used end."""

import trio
import trio.testing

from node.services.membership.connection_keeper import LOOK_SECONDS, ConnectionKeeper
from node.store.members import Member
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.keys import PrivateKey
from protocols.messages import GetHeads, Ping
from protocols.policy.connection_plan import IDLE_SECONDS
from tests.unit.node.swarm.rpc_stories import KEY, Clock
from tests.unit.one_end import OneEnd, RecordingService, rpc_over

OWN, *PEERS = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(1, 13))


class Away:
    """What the keeper asks of the picture."""

    def __init__(self) -> None:
        self.peers: set[str] = set()

    def is_away(self, peer: str) -> bool:
        return peer in self.peers


class Kept:
    """A keeper over members that are all connected, and what it decided."""

    def __init__(self, net: OneEnd, rpc: Rpc, count: int) -> None:
        self.members = Members(OWN, replication=3, connections_kept=6)
        self.picture = Away()
        self.plans: list[frozenset[str]] = []
        net.come(*PEERS[:count])
        for peer in PEERS[:count]:
            self.members.put(
                Member(peer=peer, name="", addresses=(), first_seen_ms=0, last_seen_ms=0)
            ).is_connected = True
        self.keeper = ConnectionKeeper(rpc, self.members, self.picture, on_plan=self._planned)

    def _planned(self, changed: tuple[str, ...], unkept: frozenset[str]) -> None:
        for peer in changed:
            presence = self.members.get(peer)
            assert presence is not None and presence.is_kept is (peer in unkept)
            presence.is_kept = peer not in unkept
        self.plans.append(unkept)


async def test_in_a_small_swarm_every_connection_stays(autojump_clock: Clock) -> None:
    net = OneEnd()
    async with rpc_over(net, RecordingService()) as rpc, trio.open_nursery() as nursery:
        all_kept = Kept(net, rpc, 6)
        nursery.start_soon(all_kept.keeper.run)
        await trio.sleep(10.0 * IDLE_SECONDS)
        assert (all_kept.plans, len(net.connected_peers())) == ([], 6)
        nursery.cancel_scope.cancel()


async def test_in_a_large_swarm_unused_connections_end_and_used_ones_stay(autojump_clock: Clock) -> None:
    net, service = OneEnd(), RecordingService()
    async with rpc_over(net, service) as rpc, trio.open_nursery() as nursery:
        large = Kept(net, rpc, 11)
        nursery.start_soon(large.keeper.run)
        await trio.sleep(1.0)
        (unkept,) = large.plans
        assert len(unkept) == 5
        asked, pinging, waiting, *_ = sorted(unkept)
        rpc.ask(waiting, GetHeads(KEY, ()), lambda reply: None)
        while trio.current_time() < IDLE_SECONDS + 2.0 * LOOK_SECONDS:
            await trio.sleep(LOOK_SECONDS)
            net.ask(pinging, 1, Ping())
            if number := rpc.ask(asked, GetHeads(KEY, ()), lambda reply: None):
                rpc.give_up(asked, number, is_missed=False)
        assert {*net.connected_peers()} == {*PEERS[:11]} - unkept | {asked, pinging, waiting}
        nursery.cancel_scope.cancel()


async def test_a_plan_follows_the_members(autojump_clock: Clock) -> None:
    net = OneEnd()
    async with rpc_over(net, RecordingService()) as rpc:
        large = Kept(net, rpc, 11)
        large.keeper.plan()
        large.keeper.plan()
        assert len(large.plans) == 1, "nothing has changed"
        gone = next(peer for peer in PEERS[:11] if peer not in large.plans[0])
        presence = large.members.get(gone)
        assert presence is not None
        presence.is_connected = False
        large.picture.peers.add(gone)
        large.keeper.plan()
        assert gone in large.plans[-1] and len(large.plans[-1]) == 5
        for peer in PEERS[6:11]:
            large.members.forget(peer)
        large.keeper.plan()
        assert large.plans[-1] == frozenset(), "the swarm is small now"


async def test_an_idle_member_is_not_gone_and_one_that_is_away_is_after_a_while(autojump_clock: Clock) -> None:
    net = OneEnd()
    async with rpc_over(net, RecordingService()) as rpc, trio.open_nursery() as nursery:
        large = Kept(net, rpc, 11)
        nursery.start_soon(large.keeper.run)
        await trio.sleep(1.0)
        idle, away, *_ = sorted(large.plans[0])
        for peer in (idle, away):
            presence = large.members.get(peer)
            assert presence is not None
            presence.is_connected, presence.is_idle = False, peer == idle
        await trio.sleep(3600.0)
        assert not large.members.is_gone(idle)
        assert large.members.is_gone(away)
        nursery.cancel_scope.cancel()
