"""The owner of a store: the node whose peer id is written in it, so that a start notices a store that was swapped.

The hints in a store are for that node's own writes, and the hints that others keep for it are for no other node. So a
node whose key is older than this start takes no other node's store. A key that was made for this start is another
matter: then the key was lost, and the store goes on under the new one, because its hints must be delivered all the
same.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from node.store.errors import StoreRefused
from node.store.sqlite import meta
from node.store.sqlite.connection import connect
from protocols.printable import printable


class Owner(NamedTuple):
    """The node that opens a store. `is_new` says that its key was made for this start."""

    peer_id: str
    is_new: bool

    def lost_with(self, path: Path) -> str:
        """What it means for this node that there is no store at this path, in words; '' for its first start."""
        if self.is_new:
            return ""
        return (
            f"{path} is missing although this node has run before, because its key is older: the store was removed, or "
            "the key was brought here without it. What only this node had is lost, and so are its hints for others"
        )

    def taken_over(self, path: Path) -> str:
        """That this node takes over the store of another one at this path, in words; '' when it is its own.

        Raises `StoreRefused` when this node must not. Only the file itself is read: a write-ahead file beside it may be
        that of the store which was there before.
        """
        try:
            with closing(connect(path, "immutable")) as db:
                owner = meta.value(db, meta.OWNER)
        except sqlite3.DatabaseError:
            return ""  # what is wrong with the file is found when it is checked
        if owner == self.peer_id or (owner is None and not self.is_new):
            return ""
        former = "an unknown node" if owner is None else printable(owner)[:100]
        if self.is_new:
            return (
                f"{path} is the store of {former}, whose key was lost or replaced: this node is a new one for the "
                "others, and goes on with the store; the hints of that one are delivered"
            )
        raise StoreRefused(
            f"{path} is the store of {former}, and the identity here is that of {self.peer_id}: one of the two was "
            "replaced while the node did not run. The store was left as it is: put back the key or the store that "
            "belongs to the other one; or move identity.key away, and the next start is that of a new node, which goes "
            "on with this store and delivers its hints"
        )
