"""Readers of setting values, from the text of a file, the environment or a command line.

Every reader takes what the source gave (text, or the value that YAML made of it) and returns the value of the setting,
or raises `ValueError` with a clause that names the value and says how to write it. No reader reads a clock, a file or a
socket; `node/config/load.py` adds the origin of the value.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from protocols.names import HOSTNAME_RULE, is_hostname, is_name, is_zone

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION_MS_MAX = 100 * 366 * _UNITS_MS["d"]
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_DNS = ("dns", "dns4", "dns6")


def text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not text")
    return str(value)


def boolean(value: object) -> bool:
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def one_of(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        word = str(value).strip().lower()
        if word not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return word

    return read


def name(value: object) -> str:
    """The name of a node or a network, as in a UCXL address."""
    word = text(value)
    if not is_name(word):
        raise ValueError(f"{word!r} is not a name: 1 to 64 letters, digits, '-', '_' and '.'")
    return word


def path(value: object) -> Path:
    """An absolute path; `~` is the home directory."""
    written = text(value)
    if not written or "\0" in written:
        raise ValueError(f"{written!r} is not a path")
    try:
        os.fsencode(written)
    except UnicodeError:
        raise ValueError(f"{written!r} is not a path: it has a character that no file name can have") from None
    try:
        return Path(written).expanduser().absolute()
    except (RuntimeError, OSError, ValueError):
        raise ValueError(f"{written!r} leads nowhere: there is no such home, or no current directory") from None


def count(low: int, high: int) -> Callable[[object], int]:
    """A whole number in a range, both ends included."""

    def read(value: object) -> int:
        try:
            number = int(str(value).strip())
        except ValueError:
            raise ValueError(f"{value!r} is not a whole number") from None
        if not low <= number <= high:
            raise ValueError(f"{number} is out of range: {low} to {high}")
        return number

    return read


def percent(value: object) -> float:
    """A share, 0 to 100, with or without a percent sign."""
    try:
        share = float(str(value).strip().removesuffix("%")) if not isinstance(value, bool) else -1.0
    except ValueError:
        raise ValueError(f"{value!r} is not a percentage; write it like 25") from None
    if not 0.0 <= share <= 100.0:
        raise ValueError(f"{value!r} is out of range: 0 to 100 percent")
    return share


def milliseconds(value: object) -> int:
    """A duration: `500ms`, `1.5s`, `5m`, `24h`, `7d`; a bare number is milliseconds."""
    match = _DURATION.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write it like 500ms, 30s or 5m")
    duration = float(match[1]) * _UNITS_MS[match[2] or "ms"]
    if duration > _DURATION_MS_MAX:
        raise ValueError(f"{str(value)[:40]!r} is out of range: a hundred years at most")
    return round(duration)


def with_unit(value: object) -> str:
    """A duration as text, which must have a unit: for a name that does not say one, as `deadline_ms` does."""
    if not isinstance(value, bool) and (match := _DURATION.fullmatch(written := str(value).strip())) and not match[2]:
        raise ValueError(f"{written[:40]} has no unit; write {written[:40]}s or {written[:40]}ms")
    return text(value)


def duration(ms: int) -> str:
    """Milliseconds as text that `milliseconds` reads, in the largest unit that divides them."""
    unit, size = max(((unit, size) for unit, size in _UNITS_MS.items() if ms % size == 0), key=lambda pair: pair[1])
    return f"{ms // size}{unit}"


def milliseconds_between(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        duration = milliseconds(value)
        if not low <= duration <= high:
            raise ValueError(f"{value!r} is out of range: {low} ms to {high} ms")
        return duration

    return read


def hours(value: object) -> float:
    """A long duration: `24h`, `7d`; a bare number is hours. At least a minute, at most a year."""
    bare = str(value).strip()
    duration = milliseconds(f"{bare}h" if bare.replace(".", "", 1).isdigit() else value) / _UNITS_MS["h"]
    if not 1 / 60 <= duration <= 24 * 366:
        raise ValueError(f"{value!r} is out of range: a minute to a year")
    return duration


def host_port(value: object) -> str:
    """`host:port` with an IP address or a host name; `[::1]:8080` for IPv6. An `http://` before it is dropped."""
    host, port = split_host_port(text(value))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(address: str) -> tuple[str, int]:
    """The host (an IPv6 address without its brackets) and the port."""
    wrong = ValueError(f"{address!r} is not host:port; write it like 127.0.0.1:8080")
    bare = address.removeprefix("http://").rstrip("/")
    host, separator, port = bare.rpartition(":")
    if not separator or not _is_port(port):
        raise wrong
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise wrong
    elif ":" in host:
        raise ValueError(f"{address!r} is not host:port; an IPv6 address stands in brackets, like [::1]:8080")
    if _ip_of(host) is None:
        if not host or host.rpartition(".")[2].isdigit():
            raise wrong
        if not is_hostname(host):
            raise ValueError(f"{host!r} cannot be the host in {address!r}: {HOSTNAME_RULE}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host names this machine alone. Of names only localhost counts: another may point anywhere."""
    address = _ip_of(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    zone = address.scope_id if isinstance(address, ipaddress.IPv6Address) else None
    return address if zone is None or is_zone(zone) else None


def bootstrap_node(value: object) -> str:
    """A bootstrap node: a multiaddr, or the `host:port` of its API, which answers with its multiaddrs."""
    node = text(value)
    if node.startswith("/"):
        return dial_address(node)
    try:
        return host_port(node)
    except ValueError as error:
        raise ValueError(
            f"{node!r} is neither a multiaddr to dial, like /ip4/192.0.2.7/tcp/4001, nor the host:port of a node's API "
            f"({error})"
        ) from None


def announced(value: object) -> str:
    """An IP address, a network like 192.168.0.0/16, or a multiaddr: what `announce` and `no_announce` name."""
    entry = text(value)
    if entry.startswith("/"):
        return dial_address(entry)
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        raise ValueError(
            f"{entry!r} is neither an IP address, nor a network like 192.168.0.0/16, nor a multiaddr to dial, like "
            "/ip4/192.0.2.7/tcp/4001"
        ) from None
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def listen_address(value: object) -> str:
    return _multiaddr(text(value), "listen")


def dial_address(value: object) -> str:
    return _multiaddr(text(value), "dial")


def _multiaddr(address: str, purpose: str) -> str:
    """A TCP multiaddr to listen on (an IP address, a port) or to dial (a DNS name and /p2p/ at the end are allowed)."""
    may_dial = purpose == "dial"
    shape = "/ip4/127.0.0.1/tcp/4001" + ("/p2p/12D3KooW..." if may_dial else "")
    wrong = ValueError(f"{address!r} is not a multiaddr to {purpose}; write it like {shape}")
    parts = address.removesuffix("/").split("/")
    if len(parts) not in ((5, 7) if may_dial else (5,)) or parts[0] or parts[3] != "tcp":
        raise wrong
    if parts[5:6] not in ([], ["p2p"]):
        raise wrong
    kind, host, port = parts[1], parts[2], parts[4]
    ip = _ip_of(host)
    if may_dial and kind in _DNS:
        if not is_hostname(host):
            raise ValueError(f"{host!r} cannot be the host in {address!r}: {HOSTNAME_RULE}")
    elif ip is None or kind != f"ip{ip.version}":
        raise wrong
    if not _is_port(port):
        raise wrong
    if parts[6:] and not _is_peer_id(parts[6]):
        raise ValueError(f"{address!r} does not end in the id of a node, which begins with 12D3KooW")
    return "/".join(parts)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535


def peer_id(value: object) -> str:
    """The peer id of a node."""
    word = text(value)
    if not _is_peer_id(word):
        raise ValueError(f"{word!r} is not the id of a node, which begins with 12D3KooW and which `bzzz id` prints")
    return word


def _is_peer_id(text: str) -> bool:
    from protocols import keys  # imported here: commands that talk to a node start faster without it
    from protocols.errors import InvalidPayload

    try:
        keys.public_key(text)
    except InvalidPayload:
        return False
    return True


def capabilities(value: object) -> tuple[str, ...]:
    """The capabilities of a node, in their own order, each place once."""
    from protocols.capabilities import ordered, parse, text_of  # imported here, as in `_is_peer_id`
    from protocols.errors import InvalidPayload

    try:
        return tuple(text_of(each) for each in ordered(parse(each) for each in list_of(text)(value)))
    except InvalidPayload as error:
        raise ValueError(error.message) from None


def is_loopback_multiaddr(address: str) -> bool:
    return is_loopback(address.split("/")[2])


def list_of(read: Callable[[object], str]) -> Callable[[object], tuple[str, ...]]:
    """A reader of lists, or of text with commas; a value that is there twice counts once, at its first place."""

    def read_all(value: object) -> tuple[str, ...]:
        parts: Sequence[object]
        if isinstance(value, str):
            parts = [part for part in value.split(",") if part.strip()]
        elif isinstance(value, list | tuple):
            parts = value
        else:
            raise ValueError(f"{value!r} is not a list")
        return tuple(dict.fromkeys(read(part) for part in parts))

    return read_all
