"""Rendezvous keys: the keys of the DHT under which nodes of one swarm find each other (`docs/protocol.md`).

A node provides the key of its network, and one for each of its capabilities. The keys have the form of a key of an
address, and the prefix in front of what is hashed keeps the two apart: no address begins with it.
"""

from base64 import urlsafe_b64encode
from hashlib import sha256

from protocols.capabilities import Capability, kind_of

_PREFIX = b"bzzz rendezvous 1\0"


def key_of_network(network: str) -> bytes:
    """The key that every node of a network provides."""
    return _key(network, "")


def key_of_capability(network: str, capability: Capability) -> bytes:
    """The key that the nodes of a network with a capability of this kind and name provide."""
    return _key(network, f"{kind_of(capability)}:{capability.name}")


def _key(network: str, name: str) -> bytes:
    digest = sha256(_PREFIX + network.encode() + b"\0" + name.encode()).digest()
    return b"/ucxl/" + urlsafe_b64encode(digest).rstrip(b"=")
