"""Absences: the judgement reaches the members and the log, at once for one that is back."""

import logging

import pytest
import trio

from node.services.replication.absences import Absences
from node.store.members import Member
from node.swarm.members import Members
from protocols.keys import PrivateKey
from tests.until import until

OWN, *PEERS = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(6))


def member(peer: str) -> Member:
    return Member(peer=peer, name=f"n{PEERS.index(peer)}", addresses=(), first_seen_ms=0, last_seen_ms=0)


def set_connected(members: Members, *peers: str) -> None:
    for presence in members.all():
        is_connected = presence.member.peer in peers
        if presence.is_connected and not is_connected:
            presence.alive_at = trio.current_time()
        presence.is_connected = is_connected
    members.notify_changed()


async def test_a_member_that_is_gone_is_replaced_until_it_is_back(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    members = Members(OWN, replication=2, members=map(member, PEERS))
    set_connected(members, *PEERS)
    absences = Absences(members, grace_seconds=60.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(absences.run)
        await trio.sleep(100.0)
        set_connected(members, *PEERS[1:])
        await trio.sleep(59.0)
        assert not members.replaced
        await until(lambda: members.replaced == {PEERS[0]}, seconds=10.0)
        set_connected(members, *PEERS)
        await trio.testing.wait_all_tasks_blocked()
        assert not members.replaced
        nursery.cancel_scope.cancel()
    assert "n0 (" in caplog.text
    assert "is gone: other nodes hold in its place" in caplog.text
    assert "it holds again" in caplog.text


async def test_a_node_that_is_cut_off_says_so_once_and_replaces_nobody(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    members = Members(OWN, replication=2, members=map(member, PEERS))
    set_connected(members, *PEERS)
    absences = Absences(members, grace_seconds=60.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(absences.run)
        await trio.sleep(10.0)
        set_connected(members, PEERS[0])
        await trio.sleep(300.0)
        assert not members.replaced
        assert absences.held.startswith("4 of the 5 other members are away at once")
        assert caplog.text.count("are away at once") == 1
        set_connected(members, *PEERS)
        await until(lambda: not absences.held, seconds=10.0)
        nursery.cancel_scope.cancel()
