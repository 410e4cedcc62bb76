"""Log positions: a peer that lost entries is found once, and not mistaken; two that run with one identity are found."""

import pytest
import trio

from node.services.membership.log_positions import RUNS_KEPT_MAX, TWIN_SECONDS, LogPositions, Loss
from node.store.memory.store import MemoryStore
from protocols.log_lineage import LogPosition

ANN = "12D3KooWAnn"


@pytest.fixture
def positions() -> LogPositions:
    return LogPositions(MemoryStore(log_id="0" * 16))


def greet(positions: LogPositions, log_id: str, *former: tuple[str, int], at: float = 0.0) -> None:
    positions.greeted(ANN, log_id, [LogPosition(*log) for log in former], f"/ip4/192.0.2.1/tcp/{log_id}", at)


async def next_loss(positions: LogPositions) -> Loss | None:
    with trio.move_on_after(0.01):
        return await positions.next_loss()
    return None


async def test_what_a_peer_says_of_its_log_is_remembered_with_the_log_that_it_named(positions: LogPositions) -> None:
    positions.heard(ANN, 5, 0.0)
    assert positions.known(ANN) is None, "it has not said hello"
    greet(positions, "a")
    positions.heard(ANN, 0, 0.0)
    assert positions.known(ANN) is None, "an older peer says nothing"
    for sequence in (5, 7, 6):
        positions.heard(ANN, sequence, 0.0)
    assert positions.known(ANN) == LogPosition("a", 7)
    greet(positions, "b", ("a", 7))
    positions.heard(ANN, 7, 0.0)
    assert positions.known(ANN) == LogPosition("b", 7)
    assert not positions.has_lost(ANN)
    assert await next_loss(positions) is None


@pytest.mark.parametrize("former", [(), (("a", 6),), (("x", 9),)])
async def test_a_peer_whose_log_lacks_an_entry_is_reported_once_and_after_it_was_told(
    positions: LogPositions, former: tuple[tuple[str, int], ...]
) -> None:
    greet(positions, "a")
    positions.heard(ANN, 7, 0.0)
    greet(positions, "b", *former)
    assert positions.has_lost(ANN)
    assert positions.known(ANN) == LogPosition("a", 7), "it is told so with the next hello"
    assert await next_loss(positions) is None
    positions.heard(ANN, 6, 0.0)
    positions.heard(ANN, 8, 0.0)
    loss = Loss(ANN, LogPosition("a", 7), LogPosition("b", 6))
    assert await next_loss(positions) == loss
    assert await next_loss(positions) is None
    assert positions.has_lost(ANN), "until it is owed everything again"
    positions.mended(loss)
    assert not positions.has_lost(ANN)
    assert positions.known(ANN) == LogPosition("b", 6)


async def test_what_could_not_be_mended_is_reported_again(positions: LogPositions) -> None:
    greet(positions, "a")
    positions.heard(ANN, 7, 0.0)
    greet(positions, "b")
    positions.heard(ANN, 1, 0.0)
    loss = await next_loss(positions)
    assert loss is not None
    positions.not_mended(loss)
    assert await next_loss(positions) is None
    positions.heard(ANN, 2, 0.0)
    again = await next_loss(positions)
    assert again == Loss(ANN, LogPosition("a", 7), LogPosition("b", 2))


async def test_a_peer_that_comes_with_a_third_log_meanwhile_is_not_taken_for_mended(positions: LogPositions) -> None:
    greet(positions, "a")
    positions.heard(ANN, 7, 0.0)
    greet(positions, "b")
    positions.heard(ANN, 1, 0.0)
    loss = await next_loss(positions)
    assert loss is not None
    greet(positions, "c")
    positions.mended(loss)
    assert positions.has_lost(ANN)
    assert positions.known(ANN) == LogPosition("a", 7)


def test_a_peer_that_starts_again_and_again_has_no_twin(positions: LogPositions) -> None:
    for number in range(2 * RUNS_KEPT_MAX):
        greet(positions, str(number))
        greet(positions, str(number))
    assert positions.twin_of(ANN, 0.0) is None


def test_a_log_that_comes_back_after_another_one_is_that_of_a_twin(positions: LogPositions) -> None:
    for log_id in ("1", "2", "1"):
        greet(positions, log_id, at=10.0)
    assert positions.twin_of(ANN, 10.0) == ("2", "/ip4/192.0.2.1/tcp/2")
    greet(positions, "2", at=12.0)
    assert positions.twin_of(ANN, 12.0) == ("1", "/ip4/192.0.2.1/tcp/1")
    positions.heard(ANN, 0, 15.0)
    greet(positions, "1", at=16.0)
    assert positions.twin_of(ANN, 15.0 + TWIN_SECONDS - 0.1) == ("2", "/ip4/192.0.2.1/tcp/2"), "it was heard since"
    assert positions.twin_of(ANN, 15.0 + TWIN_SECONDS) is None, "the other one is gone"
    greet(positions, "1", at=40.0)
    assert positions.twin_of(ANN, 40.0) is None
    greet(positions, "2", at=41.0)
    assert positions.twin_of(ANN, 41.0) == ("1", "/ip4/192.0.2.1/tcp/1"), "it is back"


def test_of_a_forgotten_peer_nothing_is_remembered(positions: LogPositions) -> None:
    for log_id in ("1", "2", "1"):
        greet(positions, log_id)
    positions.forget(ANN)
    assert positions.twin_of(ANN, 0.0) is None
    positions.heard(ANN, 5, 0.0)
    assert positions.known(ANN) is None
