"""Network keys: the pre-shared key of a private network, its file, and the phrase by which a node joins.

The file is that of libp2p's specification 'Pre-shared Key Based Private Networks in IPFS', as `swarm.key` of other
programs is:

    /key/swarm/psk/1.0.0/
    /base16/
    <64 hex digits>

The phrase is one word for a person to copy: `bzzz-join:NETWORK:KEY`. KEY is the base58 of the 32 bytes of the key and
the first 4 of a hash over them and the name, so that a slip of the pen is found.
"""

import binascii
from hashlib import sha256
from typing import NamedTuple, NoReturn

import base58

from protocols.errors import InvalidPayload
from protocols.names import is_name

KEY_BYTES = 32
_HEAD = "/key/swarm/psk/1.0.0/"
_PHRASE = "bzzz-join"
_SUM_BYTES = 4


class Invitation(NamedTuple):
    """What a phrase says: the name of a network, and its key (32 bytes)."""

    network: str
    key: bytes


def key_file(key: bytes) -> str:
    """The content of a `swarm.key`."""
    return f"{_HEAD}\n/base16/\n{key.hex()}\n"


def read_key_file(content: bytes) -> bytes:
    """The key in a `swarm.key`: in base16, base64, or as it is (`/bin/`). Raises `InvalidPayload`."""
    head, _, rest = content.partition(b"\n")
    coding, _, encoded = rest.partition(b"\n")
    if head.strip() != _HEAD.encode():
        _refuse(f"its first line is not {_HEAD}")
    try:
        match coding.strip():
            case b"/base16/":
                key = bytes.fromhex(encoded.decode("ascii").strip())
            case b"/base64/":
                key = binascii.a2b_base64(encoded.strip(), strict_mode=True)
            case b"/bin/":
                key = encoded[:KEY_BYTES] if encoded[KEY_BYTES:] in (b"", b"\n", b"\r\n") else encoded
            case _:
                _refuse("its second line is none of /base16/, /base64/ and /bin/")
    except ValueError:
        _refuse("its third line is no key")
    if len(key) != KEY_BYTES:
        _refuse(f"its key has {len(key)} bytes, and not {KEY_BYTES}")
    return key


def phrase(invitation: Invitation) -> str:
    """The phrase for a network."""
    return f"{_PHRASE}:{invitation.network}:{base58.b58encode(invitation.key + _sum(invitation)).decode('ascii')}"


def read_phrase(text: str) -> Invitation:
    """What a phrase says. Raises `InvalidPayload`, with a message that does not repeat the phrase."""
    parts = text.strip().split(":")
    if len(parts) != 3 or parts[0] != _PHRASE or not is_name(parts[1]):
        raise InvalidPayload(f"this is no join phrase: it looks like {_PHRASE}:NETWORK:KEY", field="join")
    try:
        data = base58.b58decode(parts[2])
    except ValueError:
        data = b""
    invitation = Invitation(parts[1], data[:KEY_BYTES])
    if len(data) != KEY_BYTES + _SUM_BYTES or data[KEY_BYTES:] != _sum(invitation):
        raise InvalidPayload("the join phrase was not copied right: a letter is wrong or missing", field="join")
    return invitation


def _sum(invitation: Invitation) -> bytes:
    return sha256(b"bzzz join 1\0" + invitation.network.encode() + b"\0" + invitation.key).digest()[:_SUM_BYTES]


def _refuse(why: str) -> NoReturn:
    raise InvalidPayload(f"not a network key file (swarm.key): {why}", field="network_key")
