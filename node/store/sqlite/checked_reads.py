"""Checked reads: whatever is read of the file is mended, or set aside, where it is not as its digest says."""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from node.store.damage import Damage
from node.store.sqlite.check import check_page
from node.store.sqlite.prefix_index import PrefixIndexes
from node.store.sqlite.reader import Reader
from node.store.sqlite.rows import DamagedRow, LostHeads
from node.store.sqlite.transaction import Mended
from node.store.sqlite.writer import Writer
from protocols.errors import Internal

log = logging.getLogger(__name__)

T = TypeVar("T")


class CheckedReads:
    """Asks the reader, and has the writer mend. `on_mended` gets each key whose rows changed."""

    def __init__(
        self,
        path: Path,
        writer: Writer,
        reader: Reader,
        prefixes: PrefixIndexes,
        damage: Damage,
        on_mended: Callable[[bytes], None],
    ) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._prefixes = prefixes
        self.damage = damage
        self._on_mended = on_mended

    async def ask(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the reader; what is damaged is mended or set aside first, each row once."""
        mended: set[tuple[type[Exception], int]] = set()
        while True:
            try:
                return await self._reader.ask(query)
            except (DamagedRow, LostHeads) as error:
                at = error.sequence if isinstance(error, DamagedRow) else error.key_id
                if (type(error), at) in mended:
                    raise Internal(
                        f"{self._path} is damaged, and this cannot be mended; run bzzz store check"
                    ) from None
                mended.add((type(error), at))
                await self._mend(error)

    async def _mend(self, damaged: DamagedRow | LostHeads) -> None:
        if isinstance(damaged, DamagedRow):
            await self._mend_row(damaged.sequence)
        else:
            await self._rebuild_key(damaged.key_id)

    async def _rebuild_key(self, key_id: int) -> None:
        await self._writer.submit(lambda transaction: transaction.rebuild_key(key_id), self._publish)

    async def _mend_row(self, sequence: int) -> None:
        await self._writer.submit(lambda transaction: transaction.mend_row(sequence), self._publish)

    def _publish(self, mended: Mended) -> None:
        if not mended.keys:
            return
        self.damage.found += 1
        for key in mended.keys:
            self._on_mended(key)
        if mended.is_set_aside:
            self.damage.set_aside[mended.digest] = mended.keys[0]
            log.error(
                "%s: header or content of version %s is damaged; it is set aside, and fetched again from a holder",
                self._path, mended.digest.hex(),
            )  # fmt: skip
        else:
            log.error("%s: a row or the heads of an address were damaged; they were made again", self._path)

    def restored(self, digest: bytes) -> None:
        """A version that may have been set aside is there again, by itself or by another one with the same content."""
        if self.damage.set_aside.pop(digest, None) is not None:
            log.warning("%s: version %s is whole again", self._path, digest.hex())

    async def check(self, *, after: int) -> int | None:
        page = await self._reader.ask(lambda db: check_page(db, self._prefixes, after))
        for fault in page.faults:
            if fault.key_id is None:
                await self._mend_row(fault.sequence)
            else:
                await self._rebuild_key(fault.key_id)
        return page.until
