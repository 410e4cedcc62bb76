"""The contract of every store: marks are kept."""

from node.store.base import Store
from tests.contract.stores import StoreRig, envelope, local, put


async def test_a_mark_is_kept_and_the_latest_one_counts(store: Store, rig: StoreRig) -> None:
    assert store.mark("audit") is None
    store.set_mark("audit", "one")
    store.set_mark("audit", "two")
    await put(store, local(envelope(1)))
    assert store.mark("audit") == "two"
    store = await rig.reopen()
    assert (store.mark("audit"), store.mark("other")) == ("two", None)
