"""Announcements and capabilities: in a large virtual swarm, and between whole nodes."""

import random

import trio

from discovery.announce import AnnounceFinder
from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.network import VirtualNetwork
from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.pubsub import FAN_OUT
from netsim.virtual.scheduler import START_MS, run_virtual
from netsim.virtual.trace import Trace
from node.config.changes import read_change
from node.swarm.members import GONE_SECONDS
from protocols.announce import TOPIC
from protocols.capabilities import Role, text_of
from protocols.keys import PrivateKey
from tests.sim.swarms import met, names, over_seeds, swarm_of
from tests.sim.test_topics import NoReceiver
from tests.unit.sightings import Seen
from tests.until import until

COUNT = 1_000
LINKS = 4
"""Others that each node dials: so each has about twice as many."""


class TopicMember:
    """A node of which only the announcements are there: its endpoint and its finder."""

    def __init__(self, net: VirtualNetwork, number: int) -> None:
        self.key = PrivateKey.from_seed(number.to_bytes(32))
        self.endpoint: VirtualEndpoint = net.attach(self.key.peer_id)
        self.peer_id = self.key.peer_id
        self.name = f"n{number}"
        self.network, self.agent = "bzzz", "bzzz/1"
        self.finder = AnnounceFinder(
            self.key,
            self,
            self,
            capabilities=lambda: (Role("planner"),),
            now_ms=lambda: START_MS + int(trio.current_time() * 1000),
            chance=lambda: 0.5,
        )
        self.subscribe(self.finder.received)

    def addresses(self, *, on_this_machine: bool = False) -> tuple[str, ...]:
        return (self.endpoint.address,)

    async def changed(self) -> None:
        await trio.sleep_forever()

    def subscribe(self, received: object) -> None:
        if not self.endpoint.pubsub.is_subscribed(TOPIC):
            self.endpoint.pubsub.subscribe(TOPIC, lambda author, data: None, self.finder.received)

    async def publish(self, data: bytes) -> None:
        await self.endpoint.pubsub.publish(TOPIC, data)

    def is_listed(self, peer: str) -> bool:
        return True

    def is_member(self, peer: str) -> bool:
        return True

    def is_gone(self, peer: str) -> bool:
        return False

    def note_alive(self, peer: str) -> None: ...

    def clock_offset_ms(self, peer: str) -> float:
        return 0.0

    def count(self, kind: str) -> None:
        raise AssertionError(f"{kind}, and there is one announcement alone")

    def refuse(self, kind: str, source: str, what: str, *, is_offence: bool = False) -> None:
        raise AssertionError(f"{kind} of {source}: {what}")


def test_a_join_is_known_to_a_thousand_nodes_within_ten_seconds_over_few_sends() -> None:
    async def run() -> None:
        net = VirtualNetwork(1, Trace())
        members = [TopicMember(net, number) for number in range(1, COUNT + 2)]
        newcomer = members.pop()
        async with trio.open_nursery() as nursery:
            await nursery.start(net.run)
            for member in (*members, newcomer):
                nursery.start_soon(member.endpoint.run, NoReceiver())
            await trio.lowlevel.checkpoint()
            rng = random.Random(1)
            for number, member in enumerate((*members, newcomer)):
                for other in rng.sample(members[:number], min(LINKS, number)):
                    await member.endpoint.dial(other.endpoint.addresses, timeout=5)
            began = trio.current_time()
            nursery.start_soon(newcomer.finder.run, Seen())

            def known_to() -> int:
                return sum(bool(member.finder.announcements()) for member in members)

            await until(lambda: known_to() >= 0.99 * COUNT, seconds=10)
            seconds = trio.current_time() - began
            await trio.sleep(10)
            sent = [member.endpoint.pubsub.sent for member in (*members, newcomer)]
            print(f"{known_to()} of {COUNT} know it, 99 % after {seconds:.3f} s; at most {max(sent)} sends a node")
            assert max(sent) <= FAN_OUT
            nursery.cancel_scope.cancel()

    run_virtual(1, run)


# -- whole nodes ------------------------------------------------------------------------------------------------------


def offered(swarm: VirtualSwarm, seen_by: str) -> set[tuple[str, str]]:
    """The node and the text of each capability that others offer, as one node knows them."""
    directory = swarm[seen_by].running.directory
    return {(offer.name, text_of(offer.capability)) for offer in directory.offers() if not offer.is_own}


def is_here(swarm: VirtualSwarm, seen_by: str, name: str) -> bool:
    """Whether one node takes another one for connected that offers something."""
    return any(each.is_connected for each in swarm[seen_by].running.directory.offers(peer=name))


def test_what_a_node_offers_is_not_dropped_by_one_that_others_alone_are_connected_with() -> None:
    async def program(seed: int) -> None:
        async with swarm_of(seed, 3) as swarm:
            await offer(swarm, "n3", "role:planner")
            await until(lambda: bool(offered(swarm, "n1")), seconds=1)
            (n1, n3) = swarm.peers("n1", "n3")
            swarm.net.cut(n1, n3)
            swarm.net.cut(n3, n1)
            await until(lambda: not is_here(swarm, "n1", "n3"), seconds=7)
            await trio.sleep(2 * GONE_SECONDS)
            assert offered(swarm, "n1"), "n2 says that it is connected with n3"

    over_seeds(program)


async def offer(swarm: VirtualSwarm, name: str, *texts: str) -> None:
    await swarm[name].running.capabilities.change(texts, author="ada", reason="")


def test_a_changed_capability_is_known_everywhere_within_a_second() -> None:
    async def program(seed: int) -> None:
        async with swarm_of(seed, 20) as swarm:
            others = names(20)[1:]
            for texts in (("role:planner",), ("role:planner", "label:gpu=a100"), ()):
                await offer(swarm, "n1", *texts)
                wanted = {("n1", text) for text in texts}
                await until(lambda: all(offered(swarm, name) == wanted for name in others), seconds=1)  # noqa: B023

    over_seeds(program)


def test_a_node_that_joins_by_one_peer_knows_what_all_others_offer_at_once() -> None:
    async def program(seed: int) -> None:
        async with swarm_of(seed, 10) as swarm:
            for name in names(9):
                await offer(swarm, name, f"role:r-{name}")
            await until(lambda: len(offered(swarm, "n10")) == 9, seconds=1)
            swarm.add("n11")
            swarm.net.partition(swarm.peers("n11", "n1"), swarm.peers(*names(10)[1:]))
            began = trio.current_time()
            await swarm.start("n11")
            await until(lambda: len(offered(swarm, "n11")) == 9, seconds=0.5)
            assert trio.current_time() - began < 0.5
            swarm.net.heal()
            await until(lambda: sum(p.is_connected for p in swarm["n11"].running.peers()) == 10)

    over_seeds(program)


def test_what_a_node_offers_goes_with_it() -> None:
    async def program(seed: int) -> None:
        async with swarm_of(seed, 4) as swarm:
            for name in ("n3", "n4"):
                await offer(swarm, name, "role:planner")
            both = {("n3", "role:planner"), ("n4", "role:planner")}
            await until(lambda: offered(swarm, "n1") == offered(swarm, "n2") == both, seconds=1)
            await swarm["n3"].stop()
            await until(
                lambda: offered(swarm, "n1") == offered(swarm, "n2") == both - {("n3", "role:planner")}, seconds=1
            )
            await swarm["n4"].crash()
            await until(lambda: not any(is_here(swarm, name, "n4") for name in ("n1", "n2")), seconds=7)
            assert offered(swarm, "n1"), "it may come back"
            await until(lambda: not offered(swarm, "n1") and not offered(swarm, "n2"), seconds=GONE_SECONDS + 1)
            swarm.add("n5")
            await swarm.start("n5")
            await met(swarm)
            assert not offered(swarm, "n5"), "and a newcomer is not told"
            await swarm.start("n4")
            await until(lambda: offered(swarm, "n1") == {("n4", "role:planner")}, seconds=5)

    over_seeds(program)


def test_what_a_node_offers_that_was_never_met_goes_with_it() -> None:
    async def program(seed: int) -> None:
        async with swarm_of(seed, 2) as swarm:
            swarm.add("n3")
            (n1, n3) = swarm.peers("n1", "n3")
            swarm.net.cut(n1, n3)
            swarm.net.cut(n3, n1)
            await swarm.start("n3")
            await offer(swarm, "n3", "role:planner")
            await until(lambda: bool(offered(swarm, "n1")), seconds=2)
            await trio.sleep(3 * GONE_SECONDS)
            assert offered(swarm, "n1"), "n2 says that it is connected with n3"
            await swarm["n3"].crash()
            await until(lambda: not offered(swarm, "n1"), seconds=GONE_SECONDS + 10)
            await swarm.start("n3")
            await until(lambda: offered(swarm, "n1") == {("n3", "role:planner")}, seconds=10)

    over_seeds(program)


def test_what_was_set_at_run_time_is_offered_again_after_a_restart() -> None:
    async def program(seed: int) -> None:
        async with swarm_of(seed, 3) as swarm:
            await offer(swarm, "n3", "role:planner")
            await until(lambda: offered(swarm, "n1") == {("n3", "role:planner")}, seconds=1)
            swarm["n3"].clock.jump(-3_600_000)
            await swarm["n3"].stop()
            await until(lambda: not offered(swarm, "n1"), seconds=1)
            await swarm.start("n3")
            await until(lambda: offered(swarm, "n1") == offered(swarm, "n2") == {("n3", "role:planner")}, seconds=5)

    over_seeds(program)


def test_a_node_whose_finder_is_off_offers_nothing_and_knows_nothing() -> None:
    async def program(seed: int) -> None:
        async with swarm_of(seed, 3) as swarm:
            change = {"discovery_announce": False}
            await swarm["n2"].running.flags.change(read_change(change, author="ada"))
            for name in names(3):
                await offer(swarm, name, f"role:r-{name}")
            await until(lambda: offered(swarm, "n1") == {("n3", "role:r-n3")}, seconds=1)
            assert offered(swarm, "n2") == set()

    over_seeds(program)
