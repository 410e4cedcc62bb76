"""The contract of every store for staged envelopes."""

from node.store.base import Store
from tests.contract.stores import (
    NOW,
    StoreRig,
    envelope,
    from_peer,
    local,
    put,
)  # fmt: skip


async def test_a_staged_envelope_is_kept_and_is_no_version(store: Store, rig: StoreRig) -> None:
    item = envelope(1)
    await store.stage(item, idempotency_key="wish", now_ms=NOW)
    await store.stage(item, idempotency_key="wish", now_ms=NOW)
    async for each in rig.now_and_after_a_restart(store):
        staged = await each.staged_under("wish")
        assert staged is not None
        assert staged.encoded == item.encoded
        assert await each.heads(item.key) == ()
        assert await each.by_digest(item.digest) is None
        assert await each.versions(item.key) == []
        assert each.last_sequence == 0
        assert each.latest_version() == 0


async def test_merging_a_staged_envelope_ends_its_staging(store: Store, rig: StoreRig) -> None:
    one, two, three = envelope(1), envelope(2), envelope(3)
    for item in (one, two, three):
        await store.stage(item, idempotency_key=str(item.version), now_ms=NOW)
    await put(store, local(one), from_peer(three.notice))
    await store.unstage(two.digest)
    assert await store.staged_under("3") is not None, "a notice does not bring its content"
    await put(store, from_peer(three))
    await store.stage(one, idempotency_key="1", now_ms=NOW)
    async for each in rig.now_and_after_a_restart(store):
        assert [await each.staged_under(key) for key in "123"] == [None, None, None]


async def test_a_staged_envelope_is_found_by_its_idempotency_key(store: Store, rig: StoreRig) -> None:
    wish, other = envelope(1), envelope(2)
    await store.stage(wish, idempotency_key="wish", now_ms=NOW)
    await store.stage(other, now_ms=NOW)
    async for each in rig.now_and_after_a_restart(store):
        assert await each.staged_under("wish") == wish
        assert await each.staged_under("another") is None
        assert await each.idempotent("wish") is None, "nothing was merged under it"
    store = await rig.reopen()
    await put(store, local(wish, key="wish"))
    assert await store.staged_under("wish") is None
    assert await store.idempotent("wish") == wish.digest


async def test_a_staged_envelope_is_forgotten_after_a_day_and_not_before(store: Store, rig: StoreRig) -> None:
    hour = 3600 * 1000
    for number, hours in ((1, 0), (2, 2), (3, 25)):
        await store.stage(envelope(number), idempotency_key=str(number), now_ms=NOW + hours * hour)
        assert await store.staged_under(str(number)) is not None
    async for each in rig.now_and_after_a_restart(store):
        assert [await each.staged_under(key) is not None for key in "123"] == [False, True, True]
