"""Attacks by long histories: very many versions of one address, very many addresses, parents, heads and reissues.

Each one is written by a member, as fast as the target takes it. Then everything is read that could cost as much as the
history is long, while a client writes to other addresses: no call may take longer than it was given.
"""

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count, islice
from urllib.parse import quote

import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import TargetFailed, scaled_by_load
from attacks.honest_peers import later_version
from attacks.http_client import exchange, request, status_of
from node.swarm.base import Lane
from protocols.envelope import Envelope, seal
from protocols.header import PARENTS_MAX, REISSUES, REISSUES_MAX
from protocols.keys import PrivateKey
from protocols.messages import ENVELOPES_MAX, GetHeads, GetVersions, Merge, MergeReply, VersionsReply
from protocols.ucxl import key_of

VERSIONS = 20_000
ADDRESSES = 20_000
HEADS = 1_000
WITH_PARENTS = 250
PAGES = 10
"""Pages of a history that a member asks for, at most."""
CALL_SECONDS = 1.0
"""How long each call of the client of the API may take, on an idle machine."""


async def long_history(run: AttackRun) -> None:
    """20,000 versions of one address, each on top of the one before."""
    history = _History(run, "long")

    def versions() -> Iterator[Envelope]:
        parents: tuple[bytes, ...] = ()
        for _ in range(VERSIONS * run.scale):
            yield (envelope := history.envelope(parents=parents))
            parents = (envelope.digest,)

    await history.write(versions())
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    await history.read_all("*^", "~~1", "~~50", f"~~{VERSIONS // 2}", "*~", "*~1", f"*~{VERSIONS // 2}", now)


async def one_version_number(run: AttackRun) -> None:
    """20,000 versions of one address with one version number, as only a liar makes them, merged now and then."""
    history = _History(run, "equal")
    number = later_version()

    def versions() -> Iterator[Envelope]:
        for _ in range(VERSIONS * run.scale // PARENTS_MAX):
            equal = [history.envelope(version=number) for _ in range(PARENTS_MAX)]
            yield from equal
            yield history.envelope(parents=[envelope.digest for envelope in equal])

    await history.write(versions())
    await history.read_all("*^", "~~1", f"~~{VERSIONS // 2}", "*~", f"*~{VERSIONS // 2}")


async def many_siblings(run: AttackRun) -> None:
    """1,000 heads of one address, and versions that merge 256 of them each."""
    history = _History(run, "siblings")
    heads = [history.envelope() for _ in range(HEADS * run.scale)]
    await history.write(heads)
    await history.read_all("*^", "~~1", "*~")
    await history.write(
        history.envelope(parents=[head.digest for head in heads[start : start + PARENTS_MAX]])
        for start in range(0, len(heads), PARENTS_MAX)
    )
    await history.read_all("*^", "~~1", "*~")


async def many_parents(run: AttackRun) -> None:
    """250 versions with 256 parents each that are known, and 250 with as many that no node has."""
    history = _History(run, "parents")
    first = [history.envelope() for _ in range(PARENTS_MAX)]
    await history.write(first)
    known = [envelope.digest for envelope in first]
    await history.write(history.envelope(parents=known) for _ in range(WITH_PARENTS * run.scale))
    await history.read_all("*^", "~~1", "*~")
    unknown = _History(run, "orphans")
    await unknown.write(
        unknown.envelope(parents=[os.urandom(32) for _ in range(PARENTS_MAX)]) for _ in range(WITH_PARENTS * run.scale)
    )
    await unknown.read_all("*^", "~~1", "*~")


async def many_reissues(run: AttackRun) -> None:
    """2,500 versions in a chain, and as many in another that each claim to replace 16 of the first."""
    history = _History(run, "reissues")
    old: list[bytes] = []

    def versions() -> Iterator[Envelope]:
        parents: tuple[bytes, ...] = ()
        for _ in range(VERSIONS * run.scale // 8):
            yield (envelope := history.envelope(parents=parents))
            old.append(envelope.digest)
            parents = (envelope.digest,)

    def reissues() -> Iterator[Envelope]:
        parents: tuple[bytes, ...] = ()
        for number in range(len(old)):
            named = [old[(number + step) % len(old)].hex() for step in range(REISSUES_MAX)]
            yield (envelope := history.envelope(parents=parents, meta={REISSUES: " ".join(named)}))
            parents = (envelope.digest,)

    await history.write(versions())
    await history.write(reissues())
    await history.read_all("*^", "~~1", f"~~{VERSIONS // 16}", "*~", f"*~{VERSIONS // 16}")


async def many_addresses(run: AttackRun) -> None:
    """20,000 addresses with one version each."""
    histories = (_History(run, f"of-many/{number}") for number in range(ADDRESSES * run.scale))
    last = _History(run, "of-many/last")
    await last.write(history.envelope() for history in histories)
    await last.write([last.envelope()])
    await last.read_all("*^", "*~")


class _History:
    """One address with an author of its own: a member writes it, and a client of the API reads it."""

    def __init__(self, run: AttackRun, path: str) -> None:
        self._run = run
        self._author = PrivateKey.from_seed(os.urandom(32))
        self._bare = f"ucxl://attack:{self._author.peer_id[-8:].lower()}@tests:live"
        self._path = path
        self._key = key_of(self.address("*^"))

    def address(self, temporal: str) -> str:
        return f"{self._bare}/{temporal}/{self._path}"

    def envelope(
        self, *, parents: Iterable[bytes] = (), version: int | None = None, meta: Mapping[str, str] | None = None
    ) -> Envelope:
        """A version of this address, later than all before it."""
        return seal(
            self._author,
            address=self.address("*^"),
            content=os.urandom(16),
            content_type="text/plain",
            version=later_version() if version is None else version,
            parents=parents,
            meta=meta or {},
        )

    async def write(self, envelopes: Iterable[Envelope]) -> None:
        """Write these versions as a member, in full messages. Raises `TargetFailed` unless all are accepted."""
        member, rest = await self._run.member(), iter(envelopes)
        async with _puts_beside(self._run):
            while batch := tuple(islice(rest, ENVELOPES_MAX)):
                reply = await member.ask(Merge(tuple(envelope.encoded for envelope in batch)), Lane.BULK)
                if not isinstance(reply, MergeReply) or reply.refusals or reply.total != len(batch):
                    raise TargetFailed(f"versions of a long history were not accepted: {str(reply)[:200]}")

    async def read_all(self, *temporals: str) -> None:
        """Read the history in all ways, each of them in time. Raises `TargetFailed`."""
        async with _puts_beside(self._run):
            await self._read_as_member()
            if self._run.target.api is not None:
                await self._read_as_client(temporals)
        await self._run.check()

    async def _read_as_member(self) -> None:
        member = await self._run.member()
        await member.ask(GetHeads(self._key, ()))
        after, total = 0, 1
        while after < total:
            reply = await member.ask(GetVersions(self._key, after, ENVELOPES_MAX))
            if not isinstance(reply, VersionsReply):
                raise TargetFailed(f"a page of a history was answered with {str(reply)[:200]}")
            after, total = after + max(1, len(reply.notices), reply.total // PAGES), reply.total

    async def _read_as_client(self, temporals: Iterable[str]) -> None:
        for temporal in temporals:
            for accept in ("*/*", "application/json"):
                await _call(self._run, "/v1/envelope", self.address(temporal), headers=f"Accept: {accept}\r\n")
        await _call(self._run, "/v1/envelope", self.address("*^"), method="PUT", body=b"on top")
        for after in (0, 1, VERSIONS // 2, VERSIONS):
            await _call(self._run, "/v1/history", self.address("*^"), f"&after={after}")


@asynccontextmanager
async def _puts_beside(run: AttackRun) -> AsyncIterator[None]:
    """A client writes to other addresses meanwhile, each time in time. Raises `TargetFailed`."""

    async def put() -> None:
        for number in count():
            address = f"ucxl://attack:beside@tests:live/*^/{number % 100}"
            await _call(run, "/v1/envelope", address, method="PUT", body=b"beside")
            await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        if run.target.api is not None:
            nursery.start_soon(put)
        yield
        nursery.cancel_scope.cancel()


async def _call(
    run: AttackRun,
    path: str,
    address: str,
    query: str = "",
    *,
    method: str = "GET",
    headers: str = "",
    body: bytes = b"",
) -> None:
    """Raises `TargetFailed` when a call fails, or is not answered within `CALL_SECONDS`."""
    assert run.target.api is not None
    data = request(
        f"{path}?address={quote(address, safe='')}{query}",
        method=method, headers=f"{headers}Connection: close\r\n", body=body,
    )  # fmt: skip
    answer = await exchange(run.target.api, data, seconds=scaled_by_load(CALL_SECONDS))
    if not 200 <= (status := status_of(answer)) < 300:
        raise TargetFailed(f"{method} {path} of {address} was answered with {status}: {answer[-300:]!r}")


ATTACKS: tuple[Attack, ...] = (
    long_history,
    one_version_number,
    many_siblings,
    many_parents,
    many_reissues,
    many_addresses,
)
