"""Signed addresses: what an identity says by a signature counts, and what another key signed counts for nothing."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from multiaddr import Multiaddr

from node.swarm.libp2p.kad_streams import KadStreams
from node.swarm.libp2p.signed_addresses import signed_addresses
from node.swarm.limits import USUAL
from node.swarm.peer_policy import PeerPolicy
from protocols.kademlia.messages import PROTOCOL

HERE, ELSEWHERE = "/ip4/192.168.1.5/tcp/4001", "/ip4/192.168.1.66/tcp/4001"
KEY, OTHER = (Ed25519PrivateKey.new(bytes([number]) * 32) for number in (1, 2))
PEER, OTHER_PEER = (ID.from_pubkey(key.get_public_key()) for key in (KEY, OTHER))


def record(peer: ID = PEER, key: Ed25519PrivateKey = KEY, *addresses: str) -> bytes:
    named = [Multiaddr(address) for address in addresses or (HERE,)]
    return seal_record(PeerRecord(peer, named, 7), key).marshal_envelope()


def test_the_addresses_that_a_peer_signed_are_read() -> None:
    signed = signed_addresses(str(PEER), record(PEER, KEY, HERE, ELSEWHERE))
    assert signed == [Multiaddr(address).to_bytes() for address in (HERE, ELSEWHERE)]


BAD = [
    record(OTHER_PEER, KEY),
    record(PEER, OTHER),
    record(OTHER_PEER, OTHER),
    record()[:-1] + b"?",
    record().replace(b"\x04\xc0\xa8\x01\x05", b"\x04\xc0\xa8\x01\x42"),
    b"",
    b"nonsense",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_record_that_the_peer_did_not_sign_for_itself_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="a peer record"):
        signed_addresses(str(PEER), bad)


class Receiver:
    def __init__(self) -> None:
        self.addresses: tuple[str, ...] | None = None

    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses


@pytest.mark.parametrize(
    ("sent", "taken", "offences"),
    [
        (record(), (HERE,), 0),
        (b"", (ELSEWHERE,), 0),
        (record(PEER, OTHER), (), 1),
    ],
    ids=["signed", "without a record", "forged"],
)
async def test_what_is_signed_goes_before_what_is_only_said(sent: bytes, taken: tuple[str, ...], offences: int) -> None:
    policy, receiver = PeerPolicy(), Receiver()
    streams = KadStreams(cast("Any", SimpleNamespace(of=lambda peer: ())), policy, USUAL, cast("Any", None))
    streams.attach(cast("Any", receiver))
    said = Identify(protocols=[PROTOCOL], listen_addrs=[Multiaddr(ELSEWHERE).to_bytes()])
    if sent:
        said.signedPeerRecord = sent
    streams.identified(str(PEER), said)
    assert receiver.addresses == tuple(f"{address}/p2p/{PEER}" for address in taken)
    assert policy.limit_counters.counts.offences == offences
