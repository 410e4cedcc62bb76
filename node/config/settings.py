"""What a node is told before it starts: the settings, and where each value came from.

Five sources, the later one wins: defaults, a profile (a file that ships with BZZZ, by its name), a YAML file, the
environment (`BZZZ_*`), the command line; what is set while a node runs (`node/config/flags.py`) lies over all of them.
In a file everything stands under `bzzz:`. `OPTIONS` is the one table of names; a name that is in no row is refused with
the nearest one that is, wherever it stands. Every value keeps its origin, so that `bzzz config show` and an error can
say who set it. What goes wrong is a `ConfigError`: one line, and the node does not start.
"""

import difflib
import os
import platform
import re
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from node.config import values
from node.config.file import ConfigError, flat, read_file
from node.config.options import OPTIONS, Option, Secret, read_path

__all__ = ["OPTIONS", "ConfigError", "Option", "Secret", "Settings", "load", "nearest"]

DEFAULT = "default"
LISTEN_ON_LOOPBACK = "/ip4/127.0.0.1/tcp/4001"
LISTEN_ON_ALL = "/ip4/0.0.0.0/tcp/4001"
_PREFIXES = ("BZZZ_", "RUSTLE_")
_FILE_VARIABLE = "BZZZ_CONFIG"
_PROFILE_VARIABLE = "BZZZ_PROFILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One node's settings. Durations are in the unit their name ends in; paths are absolute once loaded."""

    backend: str = "hybrid"
    """`mock`, `real` or `hybrid`: what the node does, after `fallback_on_error` has had its say."""
    fallback_on_error: bool | None = None
    """None: not set. False with hybrid: errors instead of answers that are pending."""
    dht_enabled: bool = True
    """False: as if the backend were mock, until it is enabled again; the host stays, and serves others."""
    bootstrap: tuple[str, ...] = ()
    """Multiaddrs to dial, and `host:port` of APIs to ask."""
    data_dir: Path = Path("~/.bzzz")
    listen: tuple[str, ...] = (LISTEN_ON_LOOPBACK,)
    """Unless set, all addresses of this machine when `open` is."""
    api: str = "127.0.0.1:8080"
    api_token: Secret | None = None
    name: str = ""
    """Unless set, the machine's host name."""
    network: str = "bzzz"
    allow: tuple[str, ...] = ()
    """The only nodes that are dealt with; none named: all are."""
    deny: tuple[str, ...] = ()
    """Nodes that are not dealt with, whether they are allowed or not."""
    open: bool = False
    mdns: bool = True
    log_format: str = "text"
    log_level: str = "info"
    metrics_enabled: bool = True
    """False: nothing is counted for `/metrics`, and nothing is there."""
    deadline_ms: int = 100
    real_deadline_ms: int = 1_000
    replication: int = 20
    write_quorum: int | None = None
    """None: 2 in real, 1 in hybrid."""
    read_quorum: int = 2
    read_freshness_ms: int = 5_000
    threshold_errors: int = 3
    backoff_ms: int = 1_000
    rollout_percent: float = 100.0
    """The share of keys, by hash, that the backend is used for; for the others this machine alone answers."""
    shadow_percent: float = 0.0
    """The share of reads answered from this machine that are asked of the swarm as well, and compared."""
    forget_after_hours: float = 24.0
    health_check_interval_ms: int = 30_000
    cache_enabled: bool = True
    cache_ttl_ms: int = 300_000
    use_distributed_resolver: bool = False
    sync_enabled: bool = True
    """False: what is owed to other nodes is kept, and not handed over."""
    discovery_configured: bool = True
    """False: bootstrap nodes are not taken up or asked; whom this node knows already it goes on knowing."""
    discovery_exchange: bool = True
    """False: members are not asked whom they know."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """For each field above: `default`, or the source and the name it was set by."""
    notes: tuple[str, ...] = ()
    """What a person should be told at the start: settings that change or void one another."""
    files: tuple[Path, ...] = ()
    """The profile and the file that were read: an edit of one is taken up while the node runs."""

    @property
    def api_host_port(self) -> tuple[str, int]:
        return values.split_host_port(self.api)

    def rows(self) -> list[tuple[str, str, str]]:
        """Each setting as (name in the file, value, origin), in the order of the fields; secrets as stars."""
        names = {option.field: option.names[0] for option in reversed(OPTIONS) if not option.is_older}
        return [
            (names[one.name], self._shown(one.name, names[one.name]), self.origins.get(one.name, DEFAULT))
            for one in fields(self)
            if one.name in names
        ]

    def _shown(self, field: str, name: str) -> str:
        """As it may be written in the file; a duration whose name has no unit with one."""
        value = getattr(self, field)
        is_bare = field.endswith("_ms") and not name.endswith("_ms")
        return values.duration(value) if is_bare else _shown(value)


_BY_KEY = {option.key: option for option in OPTIONS}
_BY_VARIABLE = {option.variable: option for option in OPTIONS}
_BY_FILE_NAME = {name: option for option in OPTIONS for name in option.names}
_SECTIONS = frozenset(name[:at] for name in _BY_FILE_NAME for at, letter in enumerate(name) if letter == ".")


class _Given(dict[str, tuple[Any, str]]):
    """Field -> (value, origin). A later source replaces; one source that sets a field twice contradicts itself."""

    def __init__(self) -> None:
        super().__init__()
        self.older: dict[str, str] = {}
        """Origins under older names, and the newer name of each."""

    def take(self, option: Option, value: object, origin: str) -> None:
        try:
            taken = option.read(value)
        except ValueError as error:
            raise ConfigError(f"{origin}: {error}") from None
        if option.is_older:
            self.older[origin] = option.field
            if taken is None:
                return
        before = self.get(option.field)
        if before and _source(before[1]) == _source(origin):
            if option.is_older:
                return
            if before[1] not in self.older:
                raise ConfigError(f"{before[1]} and {origin} set the same thing; leave one of them out")
        self[option.field] = (taken, origin)

    def notes(self) -> list[str]:
        """What to say of older names."""
        newer = {option.field: option for option in reversed(OPTIONS) if not option.is_older}
        return [
            f"{origin} is an older name; write {newer[field].variable} in its place"
            + ("" if field not in self or self[field][1] == origin else f" (not used: {self[field][1]} wins)")
            for origin, field in self.older.items()
        ]


def _source(origin: str) -> str:
    """Which of the sources an origin is of."""
    return origin.partition(" ")[0]


def load(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a node, from all its sources; `flags` is by field name, None and () meaning 'not given'.

    `flags["profile"]`, or else `BZZZ_PROFILE`, names the profile; `flags["config"]`, or else `BZZZ_CONFIG`, the file.
    Raises `ConfigError`.
    """
    environment = os.environ if environment is None else environment
    told = {key: value for key, value in (flags or {}).items() if value is not None and value != ()}
    given = _Given()
    files = []
    if profile := told.pop("profile", None) or environment.get(_PROFILE_VARIABLE):
        files.append(_profile_path(str(profile)))
        _take_file(given, files[0], f"profile {profile}")
    if name_of_file := told.pop("config", None) or environment.get(_FILE_VARIABLE):
        path = _config_path(name_of_file)
        files.append(path)
        _take_file(given, path, f"file {path}")
    _take_environment(given, environment)
    for key, value in told.items():
        given.take(_BY_KEY[key], value, f"flag --{'no-' if value is False else ''}{key.replace('_', '-')}")
    return replace(_settled(given), files=tuple(files))


def profiles() -> Mapping[str, Path]:
    """The profiles that ship with BZZZ, by name: from the checkout, or from where an installation puts its data."""
    folder = Path(__file__).parents[2] / "config"
    if not (folder / "hybrid.yaml").is_file():
        folder = Path(sysconfig.get_path("data")) / "share" / "bzzz" / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _profile_path(profile: str) -> Path:
    known = profiles()
    if profile not in known:
        hint = nearest(profile, known) or f"; there are {', '.join(known) or 'none'}"
        raise ConfigError(f"there is no profile {profile!r}{hint} (a file of your own is named by --config)")
    return known[profile]


def _config_path(name_of_file: object) -> Path:
    try:
        return read_path(name_of_file)
    except ValueError as error:
        raise ConfigError(f"the configuration file: {error}") from None


def _take_file(given: _Given, path: Path, source: str) -> None:
    for name, value in flat(read_file(path), _SECTIONS):
        if (option := _BY_FILE_NAME.get(name)) is None:
            raise ConfigError(f"{source}: 'bzzz: {name}' is no setting of a node{nearest(name, _BY_FILE_NAME)}")
        if value is not None:
            given.take(option, value, f"{source}: {name}")


def _take_environment(given: _Given, environment: Mapping[str, str]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(_PREFIXES) or variable in (_FILE_VARIABLE, _PROFILE_VARIABLE):
            continue
        if (option := _BY_VARIABLE.get(variable)) is None:
            known = nearest(variable, [*_BY_VARIABLE, _FILE_VARIABLE, _PROFILE_VARIABLE])
            raise ConfigError(f"the environment sets {variable}, which is no setting of a node{known}")
        if environment[variable].strip():
            given.take(option, environment[variable], f"environment {variable}")


def _settled(given: _Given) -> Settings:
    """The settings when every source has spoken: defaults that follow from others, contradictions refused."""
    own = (one.name for one in fields(Settings) if one.name not in ("origins", "notes", "files"))
    settings = Settings(
        **{name: value for name, (value, _) in given.items()},
        origins={name: given[name][1] if name in given else DEFAULT for name in own},
    )
    if "data_dir" not in given:
        try:
            settings = replace(settings, data_dir=read_path(str(settings.data_dir)))
        except ValueError as error:
            raise ConfigError(f"{error}; name a data directory with --data-dir") from None
    if "name" not in given:
        settings = replace(settings, name=re.sub(r"[^A-Za-z0-9._-]", "-", platform.node())[:64] or "node")
    if "listen" not in given and settings.open:
        settings = replace(settings, listen=(LISTEN_ON_ALL,))
    _refuse_contradictions(settings)
    return _with_notes(settings, given.notes())


def _refuse_contradictions(settings: Settings) -> None:
    origins = settings.origins
    for quorum in ("write_quorum", "read_quorum"):
        number = getattr(settings, quorum)
        if origins[quorum] != DEFAULT and number > settings.replication:
            raise ConfigError(
                f"{origins[quorum]}: a quorum of {number} is never reached with replication "
                f"{settings.replication} ({origins['replication']})"
            )
    if not settings.listen and settings.backend != "mock":
        raise ConfigError(f"{origins['listen']}: no address to listen on; name one, like {LISTEN_ON_LOOPBACK}")
    for address in settings.listen:
        if not (settings.open or values.is_loopback_multiaddr(address)):
            raise ConfigError(
                f"{origins['listen']}: {address} is not on loopback, so anyone who reaches it could join the swarm; "
                "add --open (BZZZ_OPEN=true) if that is meant"
            )
    if settings.api_token is None and not values.is_loopback(settings.api_host_port[0]):
        raise ConfigError(
            f"{origins['api']}: {settings.api} is not on loopback, so the API needs a token; "
            "give one by --api-token-file FILE or BZZZ_API_TOKEN"
        )


def _with_notes(settings: Settings, notes: list[str]) -> Settings:
    if settings.backend == "real" and settings.fallback_on_error:
        settings = replace(settings, backend="hybrid")
        notes.append(
            f"backend real with fallback_on_error=true ({settings.origins['fallback_on_error']}) is hybrid: "
            "this machine answers when the swarm does not"
        )
    if settings.backend == "mock":
        set_here = (name for name in ("listen", "bootstrap") if settings.origins[name] != DEFAULT)
        unused = [name for name in set_here if getattr(settings, name)]
        if unused:
            notes.append(f"backend mock has no swarm, so {' and '.join(unused)} will not be used")
    return replace(settings, notes=tuple(notes))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or nothing when no known name is near."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
