"""The table of settings: one row for each thing a node can be told, with its names and how its value is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.config import values
from node.config.file import reason


class Secret:
    """Text that does not show itself: in a log, an error or a listing it reads as stars."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "********"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: a field of the settings, how its value is read, and what it is called.

    `names[0]` is its name in the file, and in capitals after `BZZZ_` in the environment; the others are accepted in
    the file too (a dot is a level). `key` is its name among the flags.
    """

    key: str
    read: Callable[[object], Any]
    names: tuple[str, ...]
    field: str
    is_older: bool = False
    """An older name for what another row sets: it says so, and gives way to that row in the same source."""

    @property
    def variable(self) -> str:
        return f"BZZZ_{self.names[0].upper()}"


def _read_token(value: object) -> Secret:
    if not isinstance(value, str) or not value.strip() or not all("!" <= letter <= "~" for letter in value.strip()):
        raise ValueError("the token is empty, or has spaces or other characters that no header can carry")
    return Secret(value.strip())


def _read_token_file(value: object) -> Secret:
    path = read_path(value)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file {path} cannot be read ({reason(error)})") from None
    return _read_token(content)


def read_path(value: object) -> Path:
    path = values.text(value)
    if not path or "\0" in path:
        raise ValueError(f"{path!r} is not a path")
    try:
        return Path(path).expanduser().absolute()
    except (RuntimeError, OSError):
        raise ValueError(f"{path!r} leads nowhere: there is no such home, or no current directory") from None


def _read_use_real(value: object) -> str | None:
    """`true` is the backend `real`; `false` says nothing: what else there is, this name never knew."""
    return "real" if values.flag(value) else None


def _option(key: str, read: Callable[[object], Any], *names: str, field: str = "", is_older: bool = False) -> Option:
    return Option(key, read, names or (key,), field or key, is_older)


OPTIONS: tuple[Option, ...] = (
    _option("backend", values.one_of("mock", "real", "hybrid"), "dht_backend", "dht.backend"),
    _option("fallback_on_error", values.flag, "fallback_on_error", "dht.fallback.enabled"),
    _option("use_real_dht", _read_use_real, field="backend", is_older=True),
    _option("dht_enabled", values.flag, "dht_enabled", "dht.enabled"),
    _option("bootstrap", values.many(values.bootstrap_node), "dht_bootstrap_nodes", "dht.bootstrap_nodes"),
    _option("data_dir", read_path),
    _option("listen", values.many(values.listen_address)),
    _option("api", values.host_port),
    _option("api_token", _read_token),
    _option("api_token_file", _read_token_file, field="api_token"),
    _option("name", values.name),
    _option("network", values.name),
    _option("allow", values.many(values.peer_id)),
    _option("deny", values.many(values.peer_id)),
    _option("open", values.flag),
    _option("mdns", values.flag),
    _option("log_format", values.one_of("text", "json")),
    _option("log_level", values.one_of("debug", "info", "warning", "error")),
    _option("metrics_enabled", values.flag, "metrics_enabled", "metrics.enabled"),
    _option("deadline_ms", values.milliseconds_between(1, 60_000)),
    _option("real_deadline_ms", values.milliseconds_between(1, 60_000)),
    _option("replication", values.count(1, 1_000)),
    _option("write_quorum", values.count(1, 1_000)),
    _option("read_quorum", values.count(1, 1_000)),
    _option("read_freshness_ms", values.milliseconds_between(0, 3_600_000)),
    _option("threshold_errors", values.count(1, 1_000), "threshold_errors", "dht.fallback.threshold_errors"),
    _option("backoff_ms", values.milliseconds_between(1, 600_000), "backoff_ms", "dht.fallback.backoff_ms"),
    _option("rollout_percent", values.percent, "rollout_percent", "dht.rollout_percent"),
    _option("shadow_percent", values.percent, "shadow_percent", "dht.shadow_percent"),
    _option("forget_after_hours", values.hours),
    _option("health_check_interval_ms", values.milliseconds_between(1_000, 3_600_000), "health_check_interval"),
    _option("cache_enabled", values.flag, "cache_enabled", "cache.enabled"),
    _option("cache_ttl_ms", values.milliseconds_between(1, 86_400_000), "cache_ttl", "cache.ttl"),
    _option("use_distributed_resolver", values.flag, "use_distributed_resolver", "resolver.distributed"),
    _option("sync_enabled", values.flag, "sync_enabled", "sync.enabled"),
    _option("discovery_configured", values.flag, "discovery_configured", "discovery.configured"),
    _option("discovery_exchange", values.flag, "discovery_exchange", "discovery.exchange"),
)
