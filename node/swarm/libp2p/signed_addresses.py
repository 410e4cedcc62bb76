"""Signed addresses: those in the signed peer record of an identity (libp2p's RFC 0003), checked."""

from libp2p.peer.envelope import consume_envelope
from libp2p.peer.id import ID

_DOMAIN = "libp2p-peer-record"


def signed_addresses(peer: str, record: bytes) -> list[bytes]:
    """The binary addresses in a record. Raises `ValueError` when it is none that this peer signed for itself."""
    try:
        envelope, signed = consume_envelope(record, _DOMAIN)
        signer, named = str(ID.from_pubkey(envelope.public_key)), str(signed.peer_id)
        addresses = [bytes(address.to_bytes()) for address in signed.addrs]
    except Exception as error:  # the library raises errors of many kinds at the bytes of strangers
        raise ValueError(f"a peer record that cannot be read: {error}") from error
    if signer != peer or named != peer:
        raise ValueError(f"a peer record of {named}, signed by {signer}")
    return addresses
