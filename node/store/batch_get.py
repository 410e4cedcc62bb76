"""Several versions by digest at once: a store that reads from a disk looks all of them up in one batch."""

from collections.abc import Iterable

import trio

from node.store.versions import Versions
from protocols.envelope import Envelope, Notice
from protocols.errors import BzzzError


async def by_digests(store: Versions, digests: Iterable[bytes]) -> dict[bytes, Envelope | Notice | None]:
    """Each version, or None where the store does not know it. Raises the errors of `Versions.by_digest`."""
    wanted = list(dict.fromkeys(digests))
    if len(wanted) == 1:
        return {wanted[0]: await store.by_digest(wanted[0])}
    found: dict[bytes, Envelope | Notice | None] = dict.fromkeys(wanted)
    errors: list[BzzzError] = []

    async def look_up(digest: bytes) -> None:
        try:
            found[digest] = await store.by_digest(digest)
        except BzzzError as error:  # raised below: the nursery would wrap it in a group
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for digest in wanted:
            nursery.start_soon(look_up, digest)
    if errors:
        raise errors[0]
    return found
