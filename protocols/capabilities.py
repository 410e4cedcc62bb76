"""Capabilities: what a node offers to others, as typed values and as text.

    role:planner                               it acts in a role
    model:llama3@70b#<64 hex digits>           it runs a model; the version and the SHA-256 digest may be left out
    service:embed=http://192.0.2.7:9000/v1     it serves something at an endpoint
    label:gpu=a100                             anything else; the value may be left out

People and configurations write the text; announcements carry the fields (`protocols/announce.py`). Both are checked
here, so that whatever is shown later is printable and has a bounded length.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from protocols.errors import InvalidPayload

CAPABILITIES_MAX = 64
"""Capabilities of one node."""
BYTES_MAX = 8 * 1024
"""Their texts together, in UTF-8: so an announcement always has room for them."""
VALUE_CHARS_MAX = 128
ENDPOINT_CHARS_MAX = 256

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:+-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9._+:-]{0,64}")
_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")
_ENDPOINT = re.compile(r"(?:[a-z][a-z0-9+.-]{0,31}://|/(?=[a-z0-9]))[!-~]+|[A-Za-z0-9.\[\]:-]+:[0-9]{1,5}")
_WORD_RULE = "1 to 64 letters, digits, '.', '_', '/' and '-'"
_SEPARATORS = frozenset("@#=:")
"""What may follow the part of a capability that a search names."""


@dataclass(frozen=True, slots=True)
class Role:
    """The node acts in a role."""

    name: str


@dataclass(frozen=True, slots=True)
class Model:
    """The node runs a model. `version` and `digest` (SHA-256, 64 hex digits) are '' when they are not stated."""

    name: str
    version: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """The node serves something at an endpoint: a URL, a multiaddr or `host:port`."""

    name: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Label:
    """Anything else. `value` may be ''."""

    name: str
    value: str = ""


Capability = Role | Model | Service | Label
_KINDS: dict[str, type[Any]] = {"role": Role, "model": Model, "service": Service, "label": Label}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def kind_of(capability: Capability) -> str:
    """`role`, `model`, `service` or `label`."""
    return _NAMES[type(capability)]


def text_of(capability: Capability) -> str:
    """The text that `parse` reads."""
    kind = kind_of(capability)
    match capability:
        case Role(name):
            return f"{kind}:{name}"
        case Model(name, version, digest):
            return f"{kind}:{name}" + (f"@{version}" if version else "") + (f"#{digest}" if digest else "")
        case Service(name, endpoint):
            return f"{kind}:{name}={endpoint}"
        case Label(name, value):
            return f"{kind}:{name}" + (f"={value}" if value else "")


def parse(text: str) -> Capability:
    """The capability in a text. Raises `InvalidPayload`."""
    kind, _, rest = text.partition(":")
    if kind not in _KINDS:
        raise _refused(text, "it begins with none of role:, model:, service: and label:")
    if kind == "role":
        return check(Role(rest))
    if kind == "model":
        rest, _, digest = rest.partition("#")
        name, _, version = rest.partition("@")
        return check(Model(name, version, digest))
    name, _, value = rest.partition("=")
    return check(Service(name, value) if kind == "service" else Label(name, value))


def fields_of(capability: Capability) -> tuple[str, ...]:
    """The kind and the fields of a capability, as they are sent."""
    return kind_of(capability), *astuple(capability)


def from_fields(sent: Sequence[object]) -> Capability:
    """The capability of a kind and its fields; further fields are ignored. Raises `InvalidPayload`."""
    kind, *values = sent
    found = _KINDS.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise InvalidPayload("a capability of an unknown kind", field="capability")
    count = len(fields(found))
    if len(values) < count or any(type(value) is not str for value in values[:count]):
        raise InvalidPayload(f"a {kind} has {count} fields of text", field="capability")
    capability: Capability = found(*values[:count])
    return check(capability)


def check(capability: Capability) -> Capability:
    """The capability, unless one of its fields breaks a rule. Raises `InvalidPayload`."""
    match capability:
        case Model(name, version, digest):
            if _MODEL.fullmatch(name) is None:
                raise _refused(name, "a model's name is 1 to 128 letters, digits, '.', '_', '/', ':', '+' and '-'")
            if _VERSION.fullmatch(version) is None:
                raise _refused(version, "a version is at most 64 letters, digits, '.', '_', '+', ':' and '-'")
            if _DIGEST.fullmatch(digest) is None:
                raise _refused(digest, "a digest is the SHA-256 of the model as 64 hex digits in lower case")
        case _ if _WORD.fullmatch(capability.name) is None:
            raise _refused(capability.name, f"a name of a {kind_of(capability)} is {_WORD_RULE}")
        case Service(_, endpoint):
            if len(endpoint) > ENDPOINT_CHARS_MAX or _ENDPOINT.fullmatch(endpoint) is None:
                raise _refused(
                    endpoint,
                    f"an endpoint is a URL, a multiaddr or host:port of at most {ENDPOINT_CHARS_MAX} printable ASCII "
                    "characters, like service:embed=http://192.0.2.7:9000",
                )
        case Label(_, value):
            if len(value) > VALUE_CHARS_MAX or not value.isprintable() or value != value.strip():
                raise _refused(value, f"a value is one line of at most {VALUE_CHARS_MAX} printable characters")
    return capability


def place_of(capability: Capability) -> tuple[str, str, str]:
    """The place of a capability among those of a node: a new one at the same place replaces the old one.

    A node may have several versions of a model, and one role, service or label of each name.
    """
    version = capability.version if isinstance(capability, Model) else ""
    return kind_of(capability), capability.name, version


def ordered(capabilities: Iterable[Capability]) -> tuple[Capability, ...]:
    """The capabilities of a node in their order, each place once: the last one wins.

    Raises `InvalidPayload` when they are too many, or too long together.
    """
    places = {place_of(capability): capability for capability in capabilities}
    if len(places) > CAPABILITIES_MAX:
        raise InvalidPayload(
            f"{len(places)} capabilities are too many for one node: {CAPABILITIES_MAX} are the most",
            field="capabilities", provided=len(places), expected=f"at most {CAPABILITIES_MAX}",
        )  # fmt: skip
    size = sum(len(text_of(capability).encode()) for capability in places.values())
    if size > BYTES_MAX:
        raise InvalidPayload(
            f"the capabilities have {size:,} bytes together, and {BYTES_MAX:,} are the most: name fewer",
            field="capabilities", provided=size, expected=f"at most {BYTES_MAX} bytes",
        )  # fmt: skip
    return tuple(places[place] for place in sorted(places))


def matches(capability: Capability, wanted: str) -> bool:
    """Whether a capability is what a search names: a kind, or its text up to a separator, with or without the kind.

    `model`, `model:llama3`, `llama3` and `llama3@70b` all find `model:llama3@70b`; `model:llama` does not.
    """
    text = text_of(capability)
    return any(_begins(each, wanted) for each in (text, text.partition(":")[2]))


def _begins(text: str, wanted: str) -> bool:
    return text.startswith(wanted) and (len(text) == len(wanted) or text[len(wanted)] in _SEPARATORS)


def _refused(provided: str, rule: str) -> InvalidPayload:
    shown = ascii(provided[:60])
    return InvalidPayload(f"{shown} is no capability: {rule}", field="capability", provided=shown, expected=rule)
