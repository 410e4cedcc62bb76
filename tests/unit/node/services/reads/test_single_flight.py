"""Look-ups that are shared: one for many, and nobody depends on who asked first."""

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
    lookups: SingleFlight[str] = SingleFlight()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lookups.run)
        await trio.testing.wait_all_tasks_blocked()
        yield lookups
        nursery.cancel_scope.cancel()


async def test_a_first_asker_that_is_cancelled_takes_nothing_from_the_others() -> None:
    async with running() as lookups, trio.open_nursery() as nursery:
        found, told, first = trio.Event(), list[str](), trio.CancelScope()

        async def look_up() -> str:
            await found.wait()
            return "found"

        async def lead() -> None:
            with first:
                told.append(await lookups.begin("a", CacheLoad(b"a"), look_up).wait())

        async def follow() -> None:
            lookup = lookups.get("a")
            assert lookup is not None
            told.append(await lookup.wait())

        nursery.start_soon(lead)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
        found.set()
        await trio.testing.wait_all_tasks_blocked()
        assert told == ["found"] * 3
        assert lookups.get("a") is None, "it is over"


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    async with running() as lookups:

        async def look_up() -> str:
            raise NotFound("nothing there", address="x")

        lookup = lookups.begin("a", CacheLoad(b"a"), look_up)
        errors: list[BzzzError] = []
        for _ in range(2):
            with pytest.raises(NotFound, match="nothing there") as raised:
                await lookup.wait()
            errors.append(raised.value)
        assert errors[0] is not errors[1]
        assert errors[0].details == {"address": "x"}


async def test_a_look_up_that_breaks_ends_nothing_but_itself() -> None:
    async with running() as lookups:

        async def broken() -> str:
            raise ZeroDivisionError

        async def whole() -> str:
            return "found"

        with pytest.raises(Internal, match="ZeroDivisionError"):
            await lookups.begin("a", CacheLoad(b"a"), broken).wait()
        assert await lookups.begin("a", CacheLoad(b"a"), whole).wait() == "found"


async def test_who_comes_after_a_change_does_not_wait_for_a_look_up_from_before() -> None:
    async with running() as lookups:
        reading = CacheLoad(b"a")
        old = lookups.begin("a", reading, trio.sleep_forever)
        assert lookups.get("a") is old
        reading.is_stale = True
        assert lookups.get("a") is None

        async def look_up() -> str:
            return "new"

        new = lookups.begin("a", CacheLoad(b"a"), look_up)
        assert lookups.get("a") is new
        assert await new.wait() == "new"


async def test_who_waits_when_the_node_stops_is_told() -> None:
    lookups: SingleFlight[str] = SingleFlight()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await lookups.run()

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        lookup = lookups.begin("a", CacheLoad(b"a"), trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        with pytest.raises(Unavailable, match="stopped"):
            await lookup.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not lookups.is_running


async def test_who_asks_while_the_node_stops_is_not_met_by_a_closed_door() -> None:
    async def look_up() -> str:
        return "found"

    for _ in range(50):  # in what order trio runs what can run is chance
        lookups: SingleFlight[str] = SingleFlight()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lookups.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                for number in range(12):  # more turns than it needs to end
                    if lookups.is_running:
                        lookups.begin(number, CacheLoad(b"a"), look_up)
                    await trio.lowlevel.checkpoint()
