"""Settings: what a node is configured with, as one frozen value.

Each setting is declared once: one that can change while a node runs in `node/config/flags.py`, any other one here.
`OPTIONS` is the table of their names. `node/config/load.py` reads the settings from their sources.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from node.config import secret, values
from node.config.flags import FlagValues
from node.config.options import Alternative, options, setting
from node.config.secret import Secret
from protocols.network_key import read_phrase

DEFAULT = "default"
"""The origin of a value that no source has set."""
LISTEN_ON_LOOPBACK = "/ip4/127.0.0.1/tcp/4001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(FlagValues):
    """The settings of one node. A duration is in the unit that its name ends in; paths are absolute once loaded."""

    bootstrap: tuple[str, ...] = setting(
        (), values.list_of(values.bootstrap_node), "dht_bootstrap_nodes", "dht.bootstrap_nodes"
    )
    """Multiaddrs to dial, and `host:port` of APIs to ask."""
    data_dir: Path = setting(Path("~/.bzzz"), values.path)
    """The directory of the identity and the store."""
    listen: tuple[str, ...] = setting((LISTEN_ON_LOOPBACK,), values.list_of(values.listen_address))
    """Multiaddrs for other nodes. Unless set, all addresses of this machine when `open` is true."""
    api: str = setting("127.0.0.1:8080", values.host_port)
    """`host:port` of the HTTP API; port 0 is any free one."""
    api_token: Secret | None = setting(
        None, secret.token, alternatives=(Alternative("api_token_file", secret.token_file),)
    )
    """The bearer token of the API."""
    name: str = setting("", values.name)
    """The name of this node. Unless set, the machine's host name."""
    network: str = setting("bzzz", values.name)
    """The name of the swarm."""
    network_key_file: Secret | None = setting(None, secret.network_key_file)
    """The pre-shared key of a private network, read from a `swarm.key`."""
    join: Secret | None = setting(
        None, secret.join_phrase, alternatives=(Alternative("join_file", secret.join_phrase_file),)
    )
    """The join phrase of a private network: its name and its key."""
    allow: tuple[str, ...] = setting((), values.list_of(values.peer_id))
    """The only peers that this node accepts. Empty: all."""
    deny: tuple[str, ...] = setting((), values.list_of(values.peer_id))
    """Peers that this node refuses, even if `allow` names them."""
    open: bool = setting(False, values.boolean)
    """Whether the swarm may listen off loopback, so that anyone who reaches it can join."""
    announce: tuple[str, ...] = setting((), values.list_of(values.announced))
    """Which own addresses other nodes are told: those in these networks, and these multiaddrs. Empty: all."""
    no_announce: tuple[str, ...] = setting((), values.list_of(values.announced))
    """Addresses and networks that other nodes are not told."""
    capabilities: tuple[str, ...] = setting((), values.capabilities)
    """What this node offers to others, as texts (`protocols/capabilities.py`)."""
    log_format: str = setting("text", values.one_of("text", "json"))
    log_level: str = setting("info", values.one_of("debug", "info", "warning", "error"))
    metrics_enabled: bool = setting(True, values.boolean, "metrics_enabled", "metrics.enabled")
    """False: nothing is counted, and there is no `/metrics`."""
    replication: int = setting(20, values.count(1, 1_000))
    """The number of nodes that should hold each key."""
    connections_kept: int = setting(48, values.count(4, 4_096))
    """With more members than that this node keeps so many connections, and dials the others when they are wanted."""
    forget_after_hours: float = setting(24.0, values.hours)
    """A peer that was not seen for so long is forgotten."""
    replica_grace_ms: int = setting(300_000, values.milliseconds_between(1_000, 7 * 86_400_000), "replica_grace")
    """A member that no node is connected with for so long is replaced: others hold in its place."""
    repair_bytes_per_second: int = setting(1 << 20, values.count(1_024, 1 << 30))
    """How much this node sends other holders at most of what others wrote and they lack."""
    provider_expiry_hours: float = setting(48.0, values.hours)
    """After how long this node forgets that another one provides a key of the DHT, unless that says so again."""
    provider_interval_hours: float = setting(22.0, values.hours)
    """How often this node says again what it provides."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """For each setting: `default`, or the source that set it and the name it was set by."""
    notes: tuple[str, ...] = ()
    """Notes for a person at the start: settings that change or cancel one another."""
    files: tuple[Path, ...] = ()
    """The profile and the file that were read. The node follows edits of them while it runs."""

    @property
    def api_host_port(self) -> tuple[str, int]:
        return values.split_host_port(self.api)

    @property
    def is_on_network(self) -> bool:
        """Whether the swarm listens beyond loopback, so that other machines can find it."""
        return self.backend != "mock" and not all(values.is_loopback_multiaddr(address) for address in self.listen)

    @property
    def network_key(self) -> bytes | None:
        """The pre-shared key of the network, 32 bytes; None: anyone who reaches this node may join."""
        if self.join is not None:
            return read_phrase(self.join.reveal()).key
        return None if self.network_key_file is None else bytes.fromhex(self.network_key_file.reveal())

    def rows(self) -> list[tuple[str, str, str]]:
        """Each setting as (name in the file, value, origin), in the order of the fields; secrets as stars."""
        names = {option.field: option.names[0] for option in reversed(OPTIONS) if not option.is_older}
        return [
            (names[one.name], self._shown(one.name, names[one.name]), self.origins.get(one.name, DEFAULT))
            for one in fields(self)
            if one.name in names
        ]

    def _shown(self, field: str, name: str) -> str:
        """The value as a file may have it; a duration whose name has no unit gets one."""
        value = getattr(self, field)
        is_bare = field.endswith("_ms") and not name.endswith("_ms")
        return values.duration(value) if is_bare else _shown(value)


OPTIONS = options(Settings)
"""Every name by which a setting can be set."""


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
