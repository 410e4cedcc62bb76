"""The virtual network keeps the contract of node/swarm/base.py, and behaves as TCP when it is cut."""

import pytest
import trio

from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.links import QUEUE_FRAMES_MAX, Link
from netsim.virtual.scheduler import chance
from node.swarm.base import DialFailed, Lane
from tests.sim.virtual_network import ALPHA, BETA, DELTA, GAMMA, ReceiverNetwork, numbered, put, run_in_network

# -- the contract of a network ----------------------------------------------------------------------------------------


def test_a_dial_connects_both_sides_and_each_receiver_is_called_once() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        assert at_alpha.calls == [("connected", BETA, "dialled")]
        (event, peer, remote) = at_beta.calls[0]
        assert (event, peer) == ("connected", ALPHA)
        assert remote.endswith(f"/p2p/{ALPHA}")
        assert remote not in alpha.addresses  # where a connection came from is not where its dialler listens
        assert (alpha.connected_peers(), beta.connected_peers()) == ((BETA,), (ALPHA,))
        before = trio.current_time()
        assert await alpha.dial(beta.addresses, timeout=5) == BETA
        assert await beta.dial(alpha.addresses, timeout=5) == ALPHA
        assert trio.current_time() == before
        assert (len(at_alpha.calls), len(at_beta.calls)) == (1, 1)

    run_in_network(program)


def test_addresses_are_distinct_name_their_node_and_stay_over_its_processes() -> None:
    async def program(network: ReceiverNetwork) -> None:
        endpoints = [await network.attach(peer) for peer in (ALPHA, BETA, GAMMA)]
        addresses = [address for endpoint in endpoints for address in endpoint.addresses]
        assert len(set(addresses)) == 3
        assert all(e.addresses[0].endswith(f"/p2p/{e.peer_id}") for e in endpoints)
        network.crash(BETA)
        assert endpoints[1].addresses == ()
        restarted = await network.attach(BETA)
        assert restarted.addresses == (addresses[1],) == (network.net.address_of(BETA),)

    run_in_network(program)


def test_frames_come_whole_and_in_order_within_a_lane() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        there, back = numbered(200), [b"", b"x" * 100_000]
        put(alpha, BETA, there)
        put(beta, ALPHA, back, Lane.BULK)
        await at_beta.until(lambda: len(at_beta.frames.get(ALPHA, [])) == 200)
        await at_alpha.until(lambda: len(at_alpha.frames.get(BETA, [])) == 2)
        assert (at_beta.frames[ALPHA], at_alpha.frames[BETA]) == (there, back)
        assert set(at_alpha.calls[1:]) == {("received", BETA, "BULK")}

    run_in_network(program)


def test_a_megabyte_on_the_bulk_lane_does_not_delay_a_small_frame() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, _, _, at_beta = await network.pair()
        put(alpha, BETA, [bytes(1 << 20)], Lane.BULK)
        put(alpha, BETA, [b"small"])
        await at_beta.until(lambda: len(at_beta.frames.get(ALPHA, [])) == 2)
        assert at_beta.frames[ALPHA][0] == b"small"

    run_in_network(program, link=Link(bytes_per_second=10e6))


def test_the_dialler_can_send_as_soon_as_its_dial_has_answered() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta = await network.attach(ALPHA), await network.attach(BETA)
        await alpha.dial(beta.addresses, timeout=5)
        put(alpha, BETA, [b"first"])
        await network.receivers[BETA].until_called("received", ALPHA)
        assert [call[0] for call in network.receivers[BETA].calls] == ["connected", "received"]

    for seed in range(20):
        run_in_network(program, seed=seed)


def test_nothing_can_be_sent_to_a_peer_that_is_not_connected() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha = await network.attach(ALPHA)
        await network.attach(BETA)
        assert not alpha.send(BETA, Lane.SMALL, b"hello")
        alpha.disconnect(BETA, "never was")
        await trio.sleep(1)
        assert network.receivers[ALPHA].calls == network.receivers[BETA].calls == []

    run_in_network(program)


def test_a_disconnect_reaches_both_receivers_but_never_inside_the_call() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        alpha.disconnect(BETA, "had enough")
        assert at_alpha.calls[-1][0] == "connected"
        assert (alpha.connected_peers(), alpha.send(BETA, Lane.SMALL, b"too late")) == ((), False)
        await at_alpha.until_called("disconnected", BETA, "had enough")
        await at_beta.until_called("disconnected", ALPHA)
        assert "had enough" in at_beta.calls[-1][2]
        assert beta.connected_peers() == ()

    run_in_network(program)


def test_a_receiver_may_disconnect_from_within_its_callback() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        at_alpha.received = lambda peer, lane, frame: alpha.disconnect(peer, "nonsense")  # type: ignore[method-assign]
        put(beta, ALPHA, numbered(10))
        await at_alpha.until_called("disconnected", BETA, "nonsense")
        await at_beta.until_called("disconnected", ALPHA)

    run_in_network(program)


def test_two_nodes_that_dial_each_other_at_once_get_one_connection() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta = await network.attach(ALPHA), await network.attach(BETA)
        answers: list[str] = []

        async def dial(one: VirtualEndpoint, other: VirtualEndpoint, after: float) -> None:
            await trio.sleep(after)
            answers.append(await one.dial(other.addresses, timeout=1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial, alpha, beta, 0)
            nursery.start_soon(dial, beta, alpha, chance(network.seed, "after").random() * 0.003)
        await trio.sleep(1)
        assert sorted(answers) == [ALPHA, BETA]
        assert [call[0] for receiver in network.receivers.values() for call in receiver.calls] == [
            "connected",
            "connected",
        ]
        put(alpha, BETA, [b"to beta"])
        put(beta, ALPHA, [b"to alpha"])
        await network.receivers[ALPHA].until_called("received", BETA)
        await network.receivers[BETA].until_called("received", ALPHA)

    for seed in range(60):
        run_in_network(program, seed=seed)


def test_a_dial_that_cannot_succeed_says_why_for_each_address() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta = await network.attach(ALPHA), await network.attach(BETA)
        network.net.attach(GAMMA)
        number = beta.address.split("/")[2]
        reasons = {
            alpha.address: "this node itself",
            network.net.address_of(GAMMA): "connection refused",
            f"/memory/{number}/p2p/{DELTA}": f"another peer has this address: {BETA}",
            "/memory/99": "connection refused",
            "/ip4/127.0.0.1/tcp/4001": "not an address of this network",
        }
        with pytest.raises(DialFailed) as failed:
            await alpha.dial(list(reasons), timeout=5)
        for address, reason in reasons.items():
            assert f"{address}: {reason}" in str(failed.value).replace("that is ", "")
        assert trio.current_time() < 1
        with pytest.raises(DialFailed, match="no address"):
            await alpha.dial([], timeout=5)
        with pytest.raises(DialFailed, match="does not run"):
            await network.net.attach(DELTA).dial([beta.address], timeout=5)
        assert await alpha.dial([*reasons, f"/memory/{number}"], timeout=5) == BETA

    run_in_network(program)


# -- faults -----------------------------------------------------------------------------------------------------------


def test_a_cut_is_silent_and_frames_that_waited_come_in_order_when_it_heals() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        frames = numbered(40)
        put(alpha, BETA, frames[:10])  # still under way when the cut comes
        network.net.partition([ALPHA], [BETA])
        put(alpha, BETA, frames[10:30])
        await trio.sleep(600)
        assert (len(at_alpha.calls), len(at_beta.calls)) == (1, 1)
        assert beta.connected_peers() == (ALPHA,)
        put(alpha, BETA, frames[30:35])
        network.net.heal()
        put(alpha, BETA, frames[35:])
        await at_beta.until(lambda: len(at_beta.frames.get(ALPHA, [])) == 40)
        assert at_beta.frames[ALPHA] == frames
        assert trio.current_time() < 602

    for seed in range(10):
        run_in_network(program, seed=seed)


def test_a_one_way_cut_stops_one_way_only() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        network.net.cut(ALPHA, BETA)
        put(alpha, BETA, [b"not heard"])
        put(beta, ALPHA, [b"heard"])
        await at_alpha.until_called("received", BETA)
        await trio.sleep(60)
        assert ALPHA not in at_beta.frames
        network.net.repair(ALPHA, BETA)
        await at_beta.until_called("received", ALPHA)

    run_in_network(program)


def test_a_disconnect_across_a_cut_is_immediate_and_the_peer_learns_it_when_the_network_heals() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        network.net.partition([ALPHA], [BETA])
        alpha.disconnect(BETA, "silent for too long")
        await at_alpha.until_called("disconnected", BETA)
        await trio.sleep(60)
        assert beta.connected_peers() == (ALPHA,)
        assert beta.send(ALPHA, Lane.SMALL, b"never received")
        network.net.heal()
        await at_beta.until_called("disconnected", ALPHA)
        assert await beta.dial(alpha.addresses, timeout=5) == ALPHA
        await at_alpha.until(lambda: BETA in at_alpha.peers)
        assert BETA not in at_alpha.frames

    run_in_network(program)


def test_a_new_connection_replaces_one_whose_end_is_not_known_yet() -> None:
    replaced = 0

    async def program(network: ReceiverNetwork) -> None:
        nonlocal replaced
        alpha, beta, _, at_beta = await network.pair()
        network.net.partition([ALPHA], [BETA])
        alpha.disconnect(BETA, "silent for too long")
        await trio.sleep(1)
        network.net.heal()
        assert await alpha.dial(beta.addresses, timeout=5) == BETA
        put(alpha, BETA, [b"again"])
        await at_beta.until_called("received", ALPHA)
        events = [call for call in at_beta.calls if call[0] != "received"]
        assert [call[0] for call in events] == ["connected", "disconnected", "connected"]
        replaced += "replaced" in events[1][2]
        await trio.sleep(60)
        assert (alpha.connected_peers(), beta.connected_peers()) == ((BETA,), (ALPHA,))

    for seed in range(20):
        run_in_network(program, seed=seed)
    assert replaced > 10


def test_a_dial_across_a_cut_hangs_until_its_timeout() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta = await network.attach(ALPHA), await network.attach(BETA)
        for cut in [(ALPHA, BETA), (BETA, ALPHA)]:
            network.net.cut(*cut)
            before = trio.current_time()
            with pytest.raises(DialFailed, match=r"no answer within 2\.5 s"):
                await alpha.dial(beta.addresses, timeout=2.5)
            assert trio.current_time() - before == pytest.approx(2.5)
            network.net.heal()
        await trio.sleep(10)  # what was left of the dials has arrived by now
        assert network.receivers[ALPHA].calls == network.receivers[BETA].calls == []
        network.net.partition([ALPHA], [BETA])
        network.net.events.at(trio.current_time() + 1, network.net.heal)
        assert await alpha.dial(beta.addresses, timeout=2.5) == BETA

    run_in_network(program)


def test_nodes_that_no_group_names_are_one_group() -> None:
    async def program(network: ReceiverNetwork) -> None:
        net = network.net
        net.partition([ALPHA], [BETA, GAMMA])
        assert net.is_open(BETA, GAMMA)
        assert not net.is_open(ALPHA, BETA)
        assert not net.is_open(ALPHA, DELTA)
        assert net.is_open(DELTA, "12D3KooWAttachedLater")
        net.partition([ALPHA, BETA])
        assert net.is_open(ALPHA, BETA)
        assert net.is_open(GAMMA, DELTA)
        assert not net.is_open(BETA, GAMMA)
        net.heal()
        assert net.is_open(BETA, GAMMA)

    run_in_network(program)


def test_a_frozen_node_stays_connected_and_receives_everything_when_it_thaws() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        gamma = await network.attach(GAMMA)
        network.net.freeze(BETA)
        put(alpha, BETA, numbered(20))
        put(beta, ALPHA, [b"from a frozen node"])
        with pytest.raises(DialFailed, match="no answer"):
            await gamma.dial(beta.addresses, timeout=1)
        await trio.sleep(600)
        assert (alpha.connected_peers(), beta.connected_peers()) == ((BETA,), (ALPHA,))
        assert (len(at_alpha.calls), len(at_beta.calls)) == (1, 1)
        network.net.thaw(BETA)
        await at_beta.until(lambda: len(at_beta.frames.get(ALPHA, [])) == 20)
        await at_alpha.until_called("received", BETA)
        assert at_beta.frames[ALPHA] == numbered(20)

    run_in_network(program)


def test_the_peers_of_a_killed_node_learn_it_after_a_moment() -> None:
    async def program(network: ReceiverNetwork) -> None:
        _, beta, at_alpha, at_beta = await network.pair()
        before = len(at_beta.calls)
        network.crash(BETA)
        assert not beta.send(ALPHA, Lane.SMALL, b"from a killed node")
        assert BETA in at_alpha.peers
        await at_alpha.until_called("disconnected", BETA, "n2 crashed")
        assert len(at_beta.calls) == before  # the receiver of the killed process gets no call
        assert await (await network.attach(BETA)).dial([network.net.address_of(ALPHA)], timeout=5) == ALPHA

    run_in_network(program)


def test_a_kill_behind_a_cut_is_learned_when_it_heals_even_if_the_node_runs_again() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, _, at_alpha, _ = await network.pair()
        network.net.partition([ALPHA], [BETA])
        network.crash(BETA)
        await trio.sleep(60)
        assert alpha.send(BETA, Lane.SMALL, b"for the former process")
        restarted = await network.attach(BETA)
        await trio.sleep(60)
        assert BETA in at_alpha.peers
        network.net.heal()
        assert await restarted.dial(alpha.addresses, timeout=5) == ALPHA
        await at_alpha.until(lambda: [call[0] for call in at_alpha.calls][-2:] == ["disconnected", "connected"])
        assert ALPHA not in network.receivers[BETA].frames

    for seed in range(10):
        run_in_network(program, seed=seed)


def test_the_peers_of_a_node_that_stops_in_good_order_learn_it() -> None:
    async def program(network: ReceiverNetwork) -> None:
        _, _, at_alpha, _ = await network.pair()
        network.scopes[BETA].cancel()
        await at_alpha.until_called("disconnected", BETA, "n2 stopped")

    run_in_network(program)


def test_a_full_queue_refuses_and_takes_again_once_it_has_drained() -> None:
    async def program(network: ReceiverNetwork) -> None:
        alpha, _, _, at_beta = await network.pair()
        network.net.freeze(BETA)
        taken = 0
        while alpha.send(BETA, Lane.SMALL, b"more"):
            taken += 1
        assert taken == QUEUE_FRAMES_MAX
        assert alpha.send(BETA, Lane.BULK, bytes(8 << 20))
        assert alpha.send(BETA, Lane.BULK, bytes(8 << 20))
        assert not alpha.send(BETA, Lane.BULK, b"one byte too many")
        network.net.thaw(BETA)
        await at_beta.until(lambda: len(at_beta.frames.get(ALPHA, [])) == taken + 2)
        assert alpha.send(BETA, Lane.SMALL, b"room again")
        assert alpha.send(BETA, Lane.BULK, b"room again")

    run_in_network(program)


def test_a_link_loses_duplicates_delays_and_reorders_as_set() -> None:
    async def sent_over(network: ReceiverNetwork, link: Link) -> list[int]:
        alpha = (await network.pair())[0]
        network.net.set_link(link, source=ALPHA, target=BETA)
        put(alpha, BETA, numbered(500))
        await trio.sleep(60)
        return [int(frame.split()[1]) for frame in network.receivers[BETA].frames[ALPHA]]

    async def losing(network: ReceiverNetwork) -> None:
        came = await sent_over(network, Link(loss=0.2))
        assert came == sorted(came)
        assert 350 < len(came) < 450

    async def doubling(network: ReceiverNetwork) -> None:
        came = await sent_over(network, Link(duplication=0.2))
        assert came == sorted(came)
        assert len(set(came)) == 500
        assert 550 < len(came) < 650

    async def reordering(network: ReceiverNetwork) -> None:
        came = await sent_over(network, Link(reordering=0.2))
        assert came != sorted(came)
        assert sorted(came) == list(range(500))

    async def delaying(network: ReceiverNetwork) -> None:
        alpha, beta, at_alpha, at_beta = await network.pair()
        network.net.set_link(Link(latency_seconds=3, jitter_seconds=0), source=ALPHA, target=BETA)
        before = trio.current_time()
        put(alpha, BETA, [b"slow"])
        await at_beta.until_called("received", ALPHA)
        assert trio.current_time() - before == pytest.approx(3, abs=0.001)
        put(beta, ALPHA, [b"fast"])
        await at_alpha.until_called("received", BETA)
        assert trio.current_time() - before < 3.01

    for program in (losing, doubling, reordering, delaying):
        run_in_network(program)
