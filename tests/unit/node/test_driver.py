"""The driver under a mock clock: ticks when the machine's deadline comes, and effects before `handle` returns."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing

from node.driver import Driver
from protocols.policy.machine import Tick

Clock = trio.testing.MockClock


@dataclass(frozen=True)
class SetDeadline:
    """An event that sets the deadline (None: none) and has these effects."""

    deadline: float | None
    effects: tuple[str, ...] = ()


@dataclass
class Alarm:
    """A machine with the deadline that `SetDeadline` sets, which records its ticks."""

    deadline: float | None = None
    ticks: list[float] = field(default_factory=list)
    on_tick: Callable[[float], float | None] = lambda now: None

    def handle(self, event: SetDeadline | Tick, now: float) -> Sequence[str]:
        if isinstance(event, SetDeadline):
            self.deadline = event.deadline
            return event.effects
        if self.deadline is None or now < self.deadline:
            return ()
        self.ticks.append(now)
        self.deadline = self.on_tick(now)
        return ("rang",)


@asynccontextmanager
async def running(driver: Driver[Any, str]) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def test_the_tick_comes_at_the_deadline(autojump_clock: Clock) -> None:
    alarm, effects = Alarm(deadline=5.0), list[str]()
    async with running(Driver(alarm, effects.append)):
        await trio.sleep(4.9)
        assert alarm.ticks == []
        await trio.sleep(100)
    assert alarm.ticks == [5.0]
    assert effects == ["rang"]


async def test_a_deadline_that_is_renewed_at_each_tick_keeps_its_pace(autojump_clock: Clock) -> None:
    alarm = Alarm(deadline=1.0, on_tick=lambda now: now + 1.0)
    async with running(Driver(alarm, lambda effect: None)):
        await trio.sleep(10.5)
    assert alarm.ticks == [float(second) for second in range(1, 11)]


async def test_an_event_that_moves_the_deadline_forward_wakes_it_in_time(autojump_clock: Clock) -> None:
    alarm = Alarm(deadline=1000.0)
    driver = Driver(alarm, lambda effect: None)
    async with running(driver):
        await trio.sleep(1)
        driver.handle(SetDeadline(3.0))
        await trio.sleep(9)
    assert alarm.ticks == [3.0]


async def test_an_event_that_sets_the_first_deadline_wakes_it(autojump_clock: Clock) -> None:
    alarm = Alarm()
    driver = Driver(alarm, lambda effect: None)
    async with running(driver):
        await trio.sleep(50)
        driver.handle(SetDeadline(60.0))
        await trio.sleep(50)
    assert alarm.ticks == [60.0]


async def test_there_is_no_tick_at_a_deadline_that_was_postponed_or_removed(autojump_clock: Clock) -> None:
    alarm = Alarm(deadline=5.0)
    driver = Driver(alarm, lambda effect: None)
    async with running(driver):
        await trio.sleep(1)
        driver.handle(SetDeadline(20.0))
        await trio.sleep(10)
        assert alarm.ticks == []
        driver.handle(SetDeadline(None))
        await trio.sleep(100)
        assert alarm.ticks == []
        driver.handle(SetDeadline(120.0))
        await trio.sleep(100)
    assert alarm.ticks == [120.0]


async def test_a_deadline_in_the_past_is_due_now(autojump_clock: Clock) -> None:
    alarm = Alarm()
    driver = Driver(alarm, lambda effect: None)
    async with running(driver):
        await trio.sleep(10)
        driver.handle(SetDeadline(3.0))
        await trio.testing.wait_all_tasks_blocked()
        assert alarm.ticks == [10.0]


async def test_a_machine_that_is_always_due_does_not_starve_other_tasks(autojump_clock: Clock) -> None:
    alarm = Alarm(deadline=0.0, on_tick=lambda now: now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Driver[SetDeadline, str](alarm, lambda effect: None).run)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert alarm.ticks


async def test_effects_are_carried_out_in_order_before_handle_returns(autojump_clock: Clock) -> None:
    effects = list[str]()
    driver = Driver(Alarm(), effects.append)
    driver.handle(SetDeadline(None, ("one", "two", "three")))
    assert effects == ["one", "two", "three"]


async def test_an_event_before_run_is_handled_and_its_deadline_is_kept(autojump_clock: Clock) -> None:
    alarm, effects = Alarm(), list[str]()
    driver = Driver(alarm, effects.append)
    driver.handle(SetDeadline(2.0, ("early",)))
    assert effects == ["early"]
    async with running(driver):
        await trio.sleep(3)
    assert alarm.ticks == [2.0]


async def test_carrying_out_an_effect_may_handle_another_event(autojump_clock: Clock) -> None:
    alarm, effects = Alarm(deadline=100.0), list[str]()

    def carry_out(effect: str) -> None:
        effects.append(effect)
        if effect == "connect":
            driver.handle(SetDeadline(7.0, ("connected",)))

    driver = Driver(alarm, carry_out)
    async with running(driver):
        driver.handle(SetDeadline(50.0, ("connect",)))
        await trio.sleep(10)
    assert effects == ["connect", "connected", "rang"]
    assert alarm.ticks == [7.0]


async def test_the_time_of_an_event_is_when_it_was_handled(autojump_clock: Clock) -> None:
    seen = list[float]()

    class Watch:
        deadline = None

        def handle(self, event: str | Tick, now: float) -> Sequence[str]:
            seen.append(now)
            return ()

    driver = Driver[str, str](Watch(), lambda effect: None)
    await trio.sleep(2.5)
    driver.handle("now")
    assert seen == [2.5]
