"""Clocks that are set while their versions are reissued."""

from random import Random

import trio

from tests.sim.swarms import Disk, hints_delivered, over_seeds, put, swarm_of
from tests.until import until

WRITES = 8


async def set_back_while_reissuing(seed: int) -> None:
    """Versions that were reissued are ahead again when the clock is set back once more: reissuing must end."""
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
        await until(lambda: machine.store.last_sequence > before, what="the first write is issued again")
        await trio.sleep(rng.random() * 0.2)
        machine.clock.jump(-85_000)
        await trio.sleep(30.0)
        assert machine.store.last_sequence <= before + 2 * WRITES
        machine.clock.jump(85_000)
        disk.seconds = 0.0
        swarm.net.heal()
        await hints_delivered(swarm)


def test_a_clock_set_back_twice_reissues_each_write_a_bounded_number_of_times() -> None:
    over_seeds(set_back_while_reissuing, range(4))


async def starts_with_a_clock_a_year_ahead(seed: int) -> None:
    """A member that cannot be reached was not seen for a year, by that clock: it is dialled all the same."""
    async with swarm_of(seed, 3) as swarm:
        await put(swarm["n3"].running)
        await hints_delivered(swarm)
        swarm.net.partition(swarm.peers("n3"))
        await swarm["n1"].crash()
        swarm["n1"].clock.jump(365 * 24 * 3600 * 1000)
        node = await swarm.start("n1")
        await trio.sleep(10.0)
        assert sorted(peer.name for peer in node.peers()) == ["n2", "n3"]


def test_no_member_is_forgotten_before_it_was_dialled() -> None:
    over_seeds(starts_with_a_clock_a_year_ahead, range(2))
