"""The verdict over a target: what it may keep of an attack, when its process has ended, and what it did wrong."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from attacks import attack_run, witness
from attacks.__main__ import not_survived
from attacks.attack_run import AttackOutcome, AttackRun, run_attack
from attacks.connections import TargetFailed
from attacks.target import AttackTarget
from attacks.witness import DESCRIPTORS_SLACK, GROWTH_BYTES_MAX, RELEASE_SECONDS, Resources, Witness, not_released
from protocols.keys import PrivateKey

BEFORE = Resources(descriptors=20, memory_bytes=100 << 20)
TARGET = AttackTarget(host="127.0.0.1", port=4001, peer=PrivateKey.from_seed(bytes(32)).peer_id)


@pytest.mark.parametrize(
    ("descriptors", "memory_bytes", "complaint"),
    [
        (0, 0, ""),
        (DESCRIPTORS_SLACK, GROWTH_BYTES_MAX, ""),
        (DESCRIPTORS_SLACK + 1, 0, "25 descriptors are open, and there were 20 before"),
        (0, GROWTH_BYTES_MAX + 1, "it kept 64 MiB more memory than before"),
        (-5, -GROWTH_BYTES_MAX, ""),
    ],
)
def test_a_target_may_keep_little_of_an_attack(descriptors: int, memory_bytes: int, complaint: str) -> None:
    now = Resources(
        descriptors=BEFORE.descriptors + descriptors, memory_bytes=BEFORE.memory_bytes + memory_bytes
    )  # fmt: skip
    assert not_released(now, BEFORE) == complaint


@pytest.mark.usefixtures("idle")
async def test_a_target_has_some_seconds_to_release_what_attackers_took(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resources(free_at: float) -> Resources:
        return BEFORE if trio.current_time() >= free_at else Resources(descriptors=1000, memory_bytes=0)

    here = Witness(TARGET)
    monkeypatch.setattr(here, "resources", lambda: resources(RELEASE_SECONDS - 1.0))
    assert await here.until_released(BEFORE) == BEFORE
    monkeypatch.setattr(here, "resources", lambda: resources(float("inf")))
    with pytest.raises(TargetFailed, match="1000 descriptors are open"):
        await here.until_released(BEFORE)


def test_the_resources_of_a_process_are_read_until_it_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = Witness(AttackTarget(host="127.0.0.1", port=4001, peer=TARGET.peer, pid=process.pid))
    found = here.resources()
    assert found.descriptors > 0
    assert here.peak_bytes == found.memory_bytes > 0
    process.communicate(b"\n")
    with pytest.raises(TargetFailed, match="the process has ended"):
        here.resources()


def test_the_resources_of_an_unknown_process_are_zero() -> None:
    assert Witness(TARGET).resources() == Resources()


def test_the_keys_of_visitors_are_on_both_sides_of_the_target() -> None:
    assert witness.key_before(TARGET.peer).peer_id < TARGET.peer < witness.key_after(TARGET.peer).peer_id


# -- the outcome of an attack -----------------------------------------------------------------------------------


class Calm(Witness):
    """A witness without a target, which finds nothing wrong."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        yield

    async def check(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load of the machine does not stretch any time."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch, idle: None) -> None:
    monkeypatch.setattr(attack_run, "Witness", Calm)


@pytest.mark.usefixtures("calm")
async def test_an_attack_without_effect_is_survived_and_what_it_held_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    closed = []

    async def hold_something(run: AttackRun) -> None:
        run.nursery.start_soon(trio.sleep_forever)
        run.hold(lambda: closed.append("it"))
        await run.check()
        await trio.sleep(2.0)

    outcome = await run_attack(hold_something, TARGET)
    assert (outcome.name, outcome.fell, outcome.seconds) == ("hold-something", "", 2.0)
    assert closed == ["it"]


@pytest.mark.usefixtures("calm")
async def test_what_the_target_did_wrong_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async def find_two_faults(run: AttackRun) -> None:
        raise ExceptionGroup("both", [TargetFailed("it hung"), TargetFailed("it hung"), TargetFailed("it lied")])

    async def never_end(run: AttackRun) -> None:
        await trio.sleep_forever()

    assert (await run_attack(find_two_faults, TARGET)).fell == "it hung; it lied"
    assert (await run_attack(never_end, TARGET)).fell == "it was not over in time"


@pytest.mark.usefixtures("calm")
async def test_a_defect_of_the_attack_is_no_verdict_on_the_target(autojump_clock: trio.testing.MockClock) -> None:
    async def fail(run: AttackRun) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_attack(fail, TARGET)


def outcome(name: str, fell: str = "") -> AttackOutcome:
    return AttackOutcome(
        name=name, fell=fell, seconds=0, visit_seconds=0, ping_seconds=0, health_seconds=0,
        descriptors_more=0, memory_bytes=0, memory_more_bytes=0, memory_peak_bytes=0,
    )  # fmt: skip


def test_the_summary_names_what_was_not_survived_and_memory_that_grows() -> None:
    outcomes = [outcome("a"), outcome("b", "it hung"), outcome("a"), outcome("b", "it hung")]
    assert not_survived(outcomes[:1], [0]) == []
    assert not_survived(outcomes, [0, GROWTH_BYTES_MAX]) == ["b", "b"]
    assert not_survived(outcomes, [0, GROWTH_BYTES_MAX + 1]) == ["b", "b", "memory, round after round"]
