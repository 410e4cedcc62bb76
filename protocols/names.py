"""Names that a configuration gives and that nodes send each other: of nodes and swarms, and of hosts."""

import re

HOSTNAME_CHARS_MAX = 253
HOSTNAME_RULE = "a host name has labels of 1 to 63 letters, digits and '-' between its dots, and at most 253 characters"
_ZONE = re.compile(r"(?=.{1,15}\Z)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def is_name(text: str) -> bool:
    """Whether a text can be the name of a node or a swarm, as in a UCXL address."""
    return _NAME.fullmatch(text) is not None


def is_hostname(text: str) -> bool:
    """Whether a text can be a host name (RFC 1123): labels of 1 to 63 letters, digits and '-', at most 253 characters.

    A resolver of Python raises UnicodeError, and not OSError, for an empty label, a longer one, or a character that
    IDNA refuses. An internationalized name is written in its ASCII form, `xn--...`.
    """
    return len(text) <= HOSTNAME_CHARS_MAX and _HOSTNAME.fullmatch(text) is not None


def is_zone(text: str) -> bool:
    """Whether a text can be the zone of an IPv6 address, `eth0.7` in fe80::1%eth0.7: the name of an interface.

    `ipaddress` takes any text there, and a resolver raises UnicodeError or TypeError for some.
    """
    return _ZONE.fullmatch(text) is not None
