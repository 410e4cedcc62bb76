"""mDNS records of libp2p: the names and the TXT data of a node's own record, and what the record of a peer says.

libp2p's specification 'Multicast DNS (mDNS)': a node answers a PTR question for the service with the name of its
instance, and with TXT data that holds one string `dnsaddr=<multiaddr>/p2p/<peer id>` for each of its addresses. The TXT
data is enough by itself: no SRV, A or AAAA record is read. Some implementations send one TXT record for each address,
so all TXT records of an instance in one message belong together.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocols import keys
from protocols.errors import InvalidPayload
from protocols.policy.address_scope import Scope, ip_of, scope_of

DEFAULT_NETWORK = "bzzz"
"""The swarm of this name shares the service of all libp2p nodes."""
SERVICE = "_p2p._udp.local."
TTL_SECONDS = 240
"""The time to live of the records of libp2p nodes."""
ADDRESSES_MAX = 64
"""Addresses in the record of one peer; a record with more is dropped."""
TXT_BYTES_MAX = 1_000
"""TXT data of this node's own record, so that the whole answer fits into one packet."""

_KEY = b"dnsaddr="
_STRING_BYTES_MAX = 255
_NETWORK_DIGITS = 10
"""A service name has at most 15 characters (RFC 6763): `p2p-` and these."""
_ADDRESS = re.compile(r"/ip(?P<version>[46])/[0-9A-Fa-f.:]{2,45}/tcp/(?P<port>[0-9]{1,5})/p2p/[^/]+")
_LABEL = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,63}")
"""One DNS label: printable ASCII without spaces and dots."""


class RecordFault(StrEnum):
    """Why a record is dropped. Each is the name of a counter."""

    MALFORMED = "malformed"
    TOO_MANY_ADDRESSES = "too_many_addresses"
    SEVERAL_PEERS = "several_peers"
    """Its addresses name different peers."""
    NOT_USABLE = "not_usable"
    """A libp2p node that this node cannot dial: another kind of key, other transports, only its own loopback."""
    OWN_ID = "own_id"
    """Another host says that it is this node."""
    CLAIMED = "claimed"
    """Another host ends a record, or more hosts speak of one peer than are heard: the one silent longest is dropped."""
    SHARE = "share"
    """The sender names more peers, or sends more messages, than one host may."""
    FULL = "full"
    """More peers are known than are kept."""
    QUEUE_FULL = "queue_full"
    """The node was too busy to take the sighting; the next answer of the peer brings it again."""


class BadRecord(Exception):
    """A record that is dropped; `fault` says why."""

    def __init__(self, fault: RecordFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRecord:
    """What the record of a peer says. Each address ends in `/p2p/<peer>`."""

    peer: str
    addresses: tuple[str, ...]


def service_of(network: str) -> str:
    """The service of a swarm. Swarms of other names do not hear each other: `_p2p-<digits>._udp.local.`."""
    if network == DEFAULT_NETWORK:
        return SERVICE
    digits = hashlib.sha256(network.encode("utf-8")).hexdigest()[:_NETWORK_DIGITS]
    return f"_p2p-{digits}._udp.local."


def is_instance_of(name: str, service: str) -> bool:
    """Whether a name, in lower case, is `<one label>.<service>`."""
    return name.endswith("." + service) and _LABEL.fullmatch(name[: -len(service) - 1]) is not None


# -- this node's own record -------------------------------------------------------------------------------------------


def announced(addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses that the own record names: what others can dial and what fits, the first ones first."""
    names: list[str] = []
    room = TXT_BYTES_MAX
    for address in addresses:
        size = 1 + len(_KEY) + len(address)
        if dialable_host(address) and size <= _STRING_BYTES_MAX and size <= room:
            names.append(address)
            room -= size
    return tuple(names)


def txt_data(addresses: Sequence[str]) -> bytes:
    """The TXT data that names these addresses."""
    entries = [_KEY + address.encode("ascii") for address in addresses]
    return b"".join(bytes((len(entry),)) + entry for entry in entries)


# -- the record of a peer ---------------------------------------------------------------------------------------------


def read_record(texts: Iterable[bytes]) -> PeerRecord:
    """What a peer says in the data of its TXT records. Raises `BadRecord`."""
    entries = [entry for text in texts for entry in _strings(text) if entry.startswith(_KEY)]
    if len(entries) > ADDRESSES_MAX:
        raise BadRecord(RecordFault.TOO_MANY_ADDRESSES)
    try:
        addresses = [entry.removeprefix(_KEY).decode("ascii") for entry in entries]
    except UnicodeDecodeError:
        raise BadRecord(RecordFault.MALFORMED) from None
    peers = {address.rpartition("/p2p/")[2] for address in addresses if "/p2p/" in address}
    if not peers:
        raise BadRecord(RecordFault.MALFORMED)
    if len(peers) > 1:
        raise BadRecord(RecordFault.SEVERAL_PEERS)
    peer = peers.pop()
    try:
        keys.public_key(peer)
    except InvalidPayload:
        raise BadRecord(RecordFault.NOT_USABLE) from None
    usable = tuple(dict.fromkeys(address for address in addresses if dialable_host(address)))
    if not usable:
        raise BadRecord(RecordFault.NOT_USABLE)
    return PeerRecord(peer=peer, addresses=usable)


def _strings(data: bytes) -> Iterator[bytes]:
    """The strings in TXT data, each behind its length in one byte. Raises `BadRecord`."""
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        if end > len(data):
            raise BadRecord(RecordFault.MALFORMED)
        yield data[at + 1 : end]
        at = end


def dialable_host(address: str) -> str:
    """The IP address in `/ip4/<host>/tcp/<port>/p2p/<id>`; '' where another machine of the network cannot dial that."""
    form = _ADDRESS.fullmatch(address)
    if form is None or int(form["port"]) > 65535 or scope_of(address) is not Scope.NETWORK:
        return ""
    ip = ip_of(address)
    return str(ip) if ip is not None and str(ip.version) == form["version"] else ""
