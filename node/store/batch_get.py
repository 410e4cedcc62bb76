"""Several versions looked up side by side: a store that reads from a disk answers them all in one hop."""

from collections.abc import Iterable

import trio

from node.store.versions import Versions
from protocols.envelope import Envelope, Notice
from protocols.errors import BzzzError


async def by_digests(store: Versions, digests: Iterable[bytes]) -> dict[bytes, Envelope | Notice | None]:
    """Each version, or None where the store does not know it. Raises what `Versions.by_digest` raises, itself."""
    asked = list(dict.fromkeys(digests))
    if len(asked) == 1:
        return {asked[0]: await store.by_digest(asked[0])}
    found: dict[bytes, Envelope | Notice | None] = dict.fromkeys(asked)
    errors: list[BzzzError] = []

    async def look_up(digest: bytes) -> None:
        try:
            found[digest] = await store.by_digest(digest)
        except BzzzError as error:  # not by the nursery, which would wrap it
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for digest in asked:
            nursery.start_soon(look_up, digest)
    if errors:
        raise errors[0]
    return found
