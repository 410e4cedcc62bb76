"""Single flight: one look-up for many callers, none of which depends on the first one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from node.services.reads.single_flight import SingleFlight
from protocols.errors import BzzzError, Internal, NotFound, Unavailable
from protocols.policy.cache import CacheLoad


@asynccontextmanager
async def running() -> AsyncIterator[SingleFlight[str]]:
    flights: SingleFlight[str] = SingleFlight()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flights.run)
        await trio.testing.wait_all_tasks_blocked()
        yield flights
        nursery.cancel_scope.cancel()


async def test_cancelling_the_first_caller_takes_nothing_from_the_others() -> None:
    async with running() as flights, trio.open_nursery() as nursery:
        is_found, answers, first = trio.Event(), list[str](), trio.CancelScope()

        async def look_up() -> str:
            await is_found.wait()
            return "found"

        async def lead() -> None:
            with first:
                answers.append(await flights.begin("a", CacheLoad(b"a"), look_up).wait())

        async def follow() -> None:
            flight = flights.get("a")
            assert flight is not None
            answers.append(await flight.wait())

        nursery.start_soon(lead)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        is_found.set()
        await trio.testing.wait_all_tasks_blocked()
        assert answers == ["found"] * 3
        assert flights.get("a") is None, "it has ended"


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    async with running() as flights:

        async def look_up() -> str:
            raise NotFound("nothing there", address="x")

        flight = flights.begin("a", CacheLoad(b"a"), look_up)
        errors: list[BzzzError] = []
        for _ in range(2):
            with pytest.raises(NotFound, match="nothing there") as raised:
                await flight.wait()
            errors.append(raised.value)
        assert errors[0] is not errors[1]
        assert errors[0].details == {"address": "x"}


async def test_an_error_in_a_look_up_ends_only_that_look_up() -> None:
    async with running() as flights:

        async def broken() -> str:
            raise ZeroDivisionError

        async def whole() -> str:
            return "found"

        with pytest.raises(Internal, match="ZeroDivisionError"):
            await flights.begin("a", CacheLoad(b"a"), broken).wait()
        assert await flights.begin("a", CacheLoad(b"a"), whole).wait() == "found"


async def test_a_caller_after_a_change_does_not_join_a_look_up_from_before() -> None:
    async with running() as flights:
        load = CacheLoad(b"a")
        old = flights.begin("a", load, trio.sleep_forever)
        assert flights.get("a") is old
        load.is_stale = True
        assert flights.get("a") is None

        async def look_up() -> str:
            return "new"

        new = flights.begin("a", CacheLoad(b"a"), look_up)
        assert flights.get("a") is new
        assert await new.wait() == "new"


async def test_a_caller_that_waits_while_the_node_stops_gets_an_error() -> None:
    flights: SingleFlight[str] = SingleFlight()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await flights.run()

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        flight = flights.begin("a", CacheLoad(b"a"), trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        with pytest.raises(Unavailable, match="stopped"):
            await flight.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not flights.is_running


async def test_a_caller_that_comes_while_the_node_stops_is_no_error() -> None:
    async def look_up() -> str:
        return "found"

    for _ in range(50):  # trio runs ready tasks in a random order
        flights: SingleFlight[str] = SingleFlight()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flights.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                for number in range(12):  # more steps than it needs to end
                    if flights.is_running:
                        flights.begin(number, CacheLoad(b"a"), look_up)
                    await trio.lowlevel.checkpoint()
