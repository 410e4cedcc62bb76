"""The API finder: asks the API of each configured node, at `host:port`, for the peer id and addresses of that node.

A person who sets up a node knows the name and port of another node sooner than its peer id. The API of every node
answers `/v1/bootstrap`, without a token, with its peer id, its addresses and the name of its swarm. Each configured
node is asked until it answers, and again from time to time, because a node may come back at another address; it is
asked at once when this machine's network has changed, or when the connection to the node has ended.
"""

import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import trio

from discovery.finder import FinderHealth, Sightings
from protocols import keys
from protocols.errors import InvalidPayload
from protocols.policy.backoff import backoff
from protocols.policy.peer_events import ITSELF
from protocols.policy.sighting import Sighting, Source

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
"""How long one request may take, from the lookup of the name to the end of the answer."""
AGAIN_SECONDS = 30.0
PAUSE_SECONDS = 1.0
"""Between two questions to one API, however often the network changes."""
RETRY_BASE_SECONDS = 0.5
RETRY_CAP_SECONDS = 4.0
"""Not more, because a node that gets its network late is to be in its swarm 5 seconds later."""
ANSWER_BYTES_MAX = 65_536
ADDRESS_CHARACTERS_MAX = 256
NAME_CHARS_MAX = 80
SWARM_PORT = 4001
"""Where a node listens unless it is configured otherwise."""
NETWORK_CHANGED = "the network of this machine changed meanwhile"


class BootstrapFailed(Exception):
    """A configured address is not a node of this swarm, or cannot be reached; the message says why."""


class ApiFinder:
    """`apis` are `host:port`, with brackets around an IPv6 address; `own` is this node's peer id, `network` the name of
    its swarm."""

    def __init__(self, apis: Sequence[str], *, own: str, network: str, chance: Callable[[], float]) -> None:
        self._apis = tuple(apis)
        self._own = own
        self._network = network
        self._chance = chance
        self._found: dict[str, str] = {}
        """The peer that answered last, by API."""
        self._woken = trio.Event()
        self._under_way: dict[trio.CancelScope, None] = {}
        """Questions: what they wait for may not come any more when this machine's network has changed."""
        self._faults: dict[str, str] = {}
        self._errors = 0
        self._latency = 0.0
        self._looked_at: float | None = None

    def health(self) -> FinderHealth:
        return FinderHealth(
            kind="api",
            is_on=bool(self._apis),
            sources=len(self._apis),
            faults=tuple(f"the bootstrap node {api}: {why}" for api, why in sorted(self._faults.items())),
            errors=self._errors,
            latency_seconds=self._latency,
            looked_at=self._looked_at,
        )

    def moved(self, peer: str = "") -> None:
        """This machine's network has changed, or the connection to `peer` has ended: what is known may be old."""
        if not peer or peer in self._found.values():
            self._woken.set()
            self._woken = trio.Event()
            for scope in () if peer else self._under_way:
                scope.cancel()

    async def run(self, sightings: Sightings) -> None:
        async with trio.open_nursery() as nursery:
            for api in self._apis:
                nursery.start_soon(self._ask_repeatedly, api, sightings)

    async def _ask_repeatedly(self, api: str, sightings: Sightings) -> None:
        failures = 0
        while True:
            started, woken = trio.current_time(), self._woken
            try:
                sighting = await self._ask(api)
                self._found[api] = sighting.peer
                sightings.saw(sighting)
                failures = 0
                self._faults.pop(api, None)
            except BootstrapFailed as error:
                failures += 1
                self._errors += 1
                if self._faults.get(api) != str(error):
                    self._faults[api] = str(error)
                    log.warning("the bootstrap node %s: %s; it is asked again", api, error)
            self._looked_at = trio.current_time()
            self._latency = self._looked_at - started
            wait = backoff(failures, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS, chance=self._chance())
            with trio.move_on_after(wait if failures else AGAIN_SECONDS):
                await woken.wait()
                failures = 0
                await trio.sleep_until(started + PAUSE_SECONDS)

    async def _ask(self, api: str) -> Sighting:
        answer = b""
        with trio.move_on_after(ASK_SECONDS) as scope:
            self._under_way[scope] = None
            try:
                answer = await _fetch(api)
            finally:
                del self._under_way[scope]
        if scope.cancelled_caught:
            is_late = trio.current_time() >= scope.deadline
            raise BootstrapFailed(f"it did not answer within {ASK_SECONDS:g} s" if is_late else NETWORK_CHANGED)
        sighting = read_bootstrap(answer, network=self._network)
        if sighting.peer == self._own:
            raise BootstrapFailed(ITSELF)
        return sighting


async def _fetch(api: str) -> bytes:
    """The bytes of the whole answer. HTTP/1.0, so that the answer is not chunked and ends with the connection."""
    host, _, port = api.rpartition(":")
    try:
        async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
            await stream.send_all(f"GET /v1/bootstrap HTTP/1.0\r\nHost: {api}\r\n\r\n".encode("ascii"))
            answer = bytearray()
            async for piece in stream:
                answer += piece
                if len(answer) > ANSWER_BYTES_MAX:
                    raise BootstrapFailed("the server there is not a node: its answer is too long")
            return bytes(answer)
    except BootstrapFailed:
        raise
    except Exception as error:  # a resolver raises more than OSError, and whatever it is must not end the node
        raise BootstrapFailed(f"it cannot be reached ({_why(error)}){_advice(host.strip('[]'), error)}") from error


def _why(error: BaseException) -> str:
    """What the machine says of a connection that failed; of several attempts, of the last one."""
    while isinstance(error.__cause__, OSError | ExceptionGroup):
        error = error.__cause__
        error = error.exceptions[-1] if isinstance(error, ExceptionGroup) else error
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return str(error)


def _advice(host: str, error: Exception) -> str:
    """What to name in the place of an API that does not answer on another machine: most APIs are on loopback."""
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror):
        return ""
    try:
        address = ip_address(host)
    except ValueError:
        kind = "dns"
    else:
        kind = f"ip{address.version}"
        if address.is_loopback:
            return ""
    return f"; unless the API of that node is configured to be reached, name its swarm: /{kind}/{host}/tcp/{SWARM_PORT}"


def read_bootstrap(answer: bytes, *, network: str) -> Sighting:
    """The sighting in an HTTP answer to `/v1/bootstrap`. Raises `BootstrapFailed`."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split()
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1] != b"200":
        raise BootstrapFailed("the server there is not a node")
    try:
        data = json.loads(body)["response"]["data"]
        peer, addresses, other_network = data["peer_id"], data["multiaddrs"], data["network"]
        keys.public_key(peer)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidPayload):
        raise BootstrapFailed("the server there is not a node") from None
    if other_network != network:
        raise BootstrapFailed(f"it is of the swarm {str(other_network)[:NAME_CHARS_MAX]!r}, not {network!r}")
    texts = _texts(addresses)
    if not any(address.endswith(f"/p2p/{peer}") for address in texts):
        raise BootstrapFailed("it has no address: its backend is mock")
    return Sighting(peer=peer, addresses=texts, source=Source.API)


def _texts(addresses: Any) -> tuple[str, ...]:
    """The entries that are text and may be multiaddrs. Which of them are the peer's own is judged with the sighting."""
    texts = [address for address in addresses if isinstance(address, str)] if isinstance(addresses, list) else []
    return tuple(text for text in texts if text.startswith("/") and len(text) <= ADDRESS_CHARACTERS_MAX)
