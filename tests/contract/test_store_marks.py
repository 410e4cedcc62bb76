"""The contract of every store: marks are kept."""

from node.store.base import Store
from node.store.marks import UNPROVED_MARK
from tests.contract.stores import StoreRig, envelope, local, put


async def test_a_mark_is_kept_and_the_latest_one_counts(store: Store, rig: StoreRig) -> None:
    assert store.mark("audit") is None
    store.set_mark("audit", "one")
    store.set_mark("audit", "two")
    await put(store, local(envelope(1)))
    assert store.mark("audit") == "two"
    store = await rig.reopen()
    assert (store.mark("audit"), store.mark("other")) == ("two", None)


async def test_a_store_that_was_closed_in_order_is_not_marked_as_one_that_may_lack_entries(
    store: Store, rig: StoreRig
) -> None:
    assert not store.mark(UNPROVED_MARK)
    await put(store, local(envelope(1)))
    store = await rig.reopen("1" * 16)
    assert not store.mark(UNPROVED_MARK)
