"""Clocks that move while what they gave out is mended."""

from random import Random

import trio

from tests.sim.swarms import Disk, over_seeds, paid, put, running, swarm_of, until

WRITES = 8


async def goes_back_while_it_is_mended(seed: int) -> None:
    """What was issued again under a clock that then goes back once more is ahead as before: not again and again."""
    rng = Random(seed)
    async with swarm_of(seed, 3) as swarm:
        machine = swarm["n1"]
        swarm.net.partition(swarm.peers("n1"))
        disk = Disk.under(machine.store)
        machine.clock.jump(120_000)
        for number in range(WRITES):
            await put(machine.running, number % 3)
        disk.seconds = 0.05
        before = machine.store.last_sequence
        machine.clock.jump(-120_000)
        await until(lambda: machine.store.last_sequence > before, what="the first of them is issued again")
        await trio.sleep(rng.random() * 0.2)
        machine.clock.jump(-85_000)
        await trio.sleep(30.0)
        assert machine.store.last_sequence <= before + 2 * WRITES
        machine.clock.jump(85_000)
        disk.seconds = 0.0
        swarm.net.heal()
        await until(lambda: not any(node.store.pending().count for node in running(swarm)), what="all hints are paid")


def test_a_clock_that_goes_back_once_more_does_not_issue_again_without_end() -> None:
    over_seeds(goes_back_while_it_is_mended, range(4))


async def starts_with_a_clock_a_year_ahead(seed: int) -> None:
    """A member that cannot be reached now was not seen for a year, as the clock says: it is looked for all the same."""
    async with swarm_of(seed, 3) as swarm:
        await put(swarm["n3"].running)
        await paid(swarm)
        swarm.net.partition(swarm.peers("n3"))
        await swarm["n1"].crash()
        swarm["n1"].clock.jump(365 * 24 * 3600 * 1000)
        node = await swarm.start("n1")
        await trio.sleep(10.0)
        assert sorted(peer.name for peer in node.peers()) == ["n2", "n3"]


def test_nobody_is_forgotten_before_he_was_looked_for() -> None:
    over_seeds(starts_with_a_clock_a_year_ahead, range(2))
