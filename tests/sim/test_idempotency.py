"""Idempotency keys under faults: writes with one key have one effect, on a stalled disk and in every backend too."""

import random

import pytest
import trio

from node.dht.base import Receipt
from protocols.errors import (
    Conflict,
    Indeterminate,
    Unavailable,
)
from tests.sim.swarms import (
    Disk,
    envelope,
    hints_delivered,
    key,
    met,
    over_seeds,
    put,
    running,
    swarm_of,
    within,
)
from tests.sim.writing import STORE_DEADLINE, WITH_DISK, backend_of


async def idempotency(seed: int) -> None:
    """Writes with one idempotency key, also concurrent ones and after a crash, have one effect."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3, backend=backend_of(seed)) as swarm:
        machine = swarm["n1"]
        disk = Disk.under(machine.store)
        disk.seconds = 0.002
        receipts = []

        async def write() -> None:
            await trio.sleep(rng.random() * 0.01)
            receipts.append(await put(machine.running, 0, idempotency_key="key"))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(write)
        await machine.crash()
        await swarm.start("n1")
        if backend_of(seed) != "mock":
            await met(swarm)
        await write()
        assert len({(receipt.digest, receipt.sequence) for receipt in receipts}) == 1
        assert (await machine.running.store.count_versions(key())) == 1
        with pytest.raises(Conflict):
            await put(machine.running, 1, idempotency_key="key")
        assert (await put(machine.running, 0, idempotency_key="another")).digest != receipts[0].digest


def test_writes_with_one_idempotency_key_have_one_effect() -> None:
    over_seeds(idempotency)


async def one_key_for_many_addresses(seed: int) -> None:
    """Writes of content, deletions and signed envelopes for many addresses at once, all with one idempotency key."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3, backend=backend_of(seed)) as swarm:
        node, disk = swarm["n1"].running, Disk.under(swarm["n1"].store)
        disk.seconds = 0.002
        for name in ("a", "b", "c"):
            written: list[Receipt] = []
            refused: list[str] = []

            async def write(number: int, name: str, written: list[Receipt], refused: list[str]) -> None:
                await trio.sleep(rng.choice((0.0, rng.random() * 0.004)))
                at = f"{name}{number}"
                try:
                    if number % 3 == 0:
                        encoded = envelope(at).encoded
                        receipt = await node.author.write_envelope(encoded, idempotency_key=name, timeout=2.0)
                    else:
                        receipt = await put(
                            node, at, b"" if number % 3 == 1 else b"content", deleted=number % 3 == 1,
                            idempotency_key=name, timeout=2.0,
                        )  # fmt: skip
                except Conflict as error:
                    refused.append(error.message)
                else:
                    written.append(receipt)

            async with trio.open_nursery() as nursery:
                for number in range(9):
                    nursery.start_soon(write, number, name, written, refused)
            assert len(written) == 1, "one idempotency key had several effects"
            assert refused == [f"this Idempotency-Key was used for {written[0].address}; take another one"] * 8
            counts = [await node.store.count_versions(key(f"{name}{number}")) for number in range(9)]
            assert sum(counts) == 1


def test_one_idempotency_key_for_many_addresses_at_once_has_one_effect() -> None:
    over_seeds(one_key_for_many_addresses, range(6))


async def uncertain_under_one_key(seed: int) -> None:
    """A write that may happen yet has taken its idempotency key, for signed envelopes and other addresses too."""
    backend = ("real", "hybrid")[seed % 2]
    async with swarm_of(seed, 3, backend=backend, store_deadline_ms=200) as swarm:
        node, disk = swarm["n1"].running, Disk.under(swarm["n1"].store)
        if backend == "real":
            for name in ("n2", "n3"):
                swarm.net.cut(swarm[name].peer, swarm["n1"].peer)
        else:
            disk.seconds = 1.0
        with pytest.raises(Indeterminate):
            await put(node, 0, b"content", idempotency_key="key")
        for number in (1, 2):
            with pytest.raises((Conflict, Unavailable)):
                if seed // 2:
                    await put(node, number, b"content", idempotency_key="key")
                else:
                    await node.author.write_envelope(envelope(number).encoded, idempotency_key="key")
        disk.seconds = 0.0
        swarm.net.heal()
        await met(swarm)
        await trio.sleep(2.0)
        with pytest.raises(Conflict):
            await put(node, 1, b"content", idempotency_key="key")
        await put(node, 0, b"content", idempotency_key="key")
        assert [await node.store.count_versions(key(number)) for number in range(3)] == [1, 0, 0]


def test_an_uncertain_write_has_taken_its_idempotency_key() -> None:
    over_seeds(uncertain_under_one_key, range(4))


async def retry_on_a_stalled_disk(seed: int) -> None:
    """The caller of an uncertain write retries with the same key, before and after the disk is stalled."""
    rng = random.Random(seed)
    backend = ("mock", "hybrid")[seed % 2]
    async with swarm_of(seed, 2, backend=backend, store_deadline_ms=int(STORE_DEADLINE * 1000)) as swarm:
        node = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        disk.stall()
        with pytest.raises(Indeterminate) as raised:
            await put(node, 0, b"content", idempotency_key="key")
        for _ in range(2):
            with within(WITH_DISK[backend]), pytest.raises(Unavailable):
                await put(node, 0, b"content", idempotency_key="key")

        async def resume() -> None:
            await trio.sleep(rng.random() * STORE_DEADLINE * 0.8)
            disk.resume()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(resume)
            receipt = await put(node, 0, b"content", idempotency_key="key")
        assert receipt.digest.hex() == raised.value.details["digest"]
        assert await node.store.count_versions(key()) == 1


def test_an_idempotent_retry_while_the_disk_is_stalled_has_one_effect() -> None:
    over_seeds(retry_on_a_stalled_disk)


async def retry_in_real(seed: int) -> None:
    """In real, a retry of an uncertain write with its key is the same write, also after a restart."""
    async with swarm_of(seed, 4, backend="real") as swarm:
        node = swarm["n1"].running
        for name in ("n2", "n3", "n4"):
            swarm.net.cut(swarm[name].peer, swarm["n1"].peer)
        with pytest.raises(Indeterminate) as raised:
            await put(node, 0, b"content", idempotency_key="key")
        swarm.net.heal()
        if seed % 2:
            await swarm["n1"].crash()
            node = await swarm.start("n1")
        await met(swarm)
        receipt = await put(node, 0, b"content", idempotency_key="key")
        assert receipt.digest.hex() == raised.value.details["digest"]
        await hints_delivered(swarm)
        for each in running(swarm):
            assert await each.store.count_versions(key()) == 1


def test_an_idempotent_retry_in_the_real_backend_has_one_effect() -> None:
    over_seeds(retry_in_real)
