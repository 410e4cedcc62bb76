"""Loads the settings of a node from their sources, and remembers the source of each value.

Five sources, the later one wins: defaults, a profile (a file that ships with BZZZ, named without its path), a YAML
file, the environment (`BZZZ_*`), the command line. What is set while a node runs (`node/config/flags.py`) wins over all
of them. In a file everything is under `bzzz:`. A name that is not in the table `OPTIONS` is refused, with the nearest
name that is. Every value keeps its origin, for `bzzz config show` and for errors. A wrong value is a `ConfigError`,
whose message is one line, and the node does not start.
"""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from node.config import values
from node.config.file import ConfigError, flat, read_file
from node.config.options import Option, nearest
from node.config.settings import DEFAULT, LISTEN_ON_LOOPBACK, OPTIONS, Settings
from protocols.network_key import read_phrase

LISTEN_ON_ALL = "/ip4/0.0.0.0/tcp/4001"
_PREFIXES = ("BZZZ_", "RUSTLE_")
_FILE_VARIABLE = "BZZZ_CONFIG"
_PROFILE_VARIABLE = "BZZZ_PROFILE"

_BY_KEY = {option.key: option for option in OPTIONS}
_BY_VARIABLE = {option.variable: option for option in OPTIONS}
_BY_FILE_NAME = {name: option for option in OPTIONS for name in option.names}
_SECTIONS = frozenset(name[:at] for name in _BY_FILE_NAME for at, letter in enumerate(name) if letter == ".")


class _Given(dict[str, tuple[Any, str]]):
    """Field -> (value, origin). A later source replaces an earlier one; a source that sets a field twice is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.older: dict[str, str] = {}
        """The origins that use an older name, and the field that each sets."""

    def set(self, option: Option, name: str, value: object, origin: str) -> None:
        try:
            read = option.read(option.checked(name, value))
        except ValueError as error:
            raise ConfigError(f"{origin}: {error}") from None
        if option.is_older:
            self.older[origin] = option.field
            if read is None:
                return
        before = self.get(option.field)
        if before and _source(before[1]) == _source(origin):
            if option.is_older:
                return
            if before[1] not in self.older:
                raise ConfigError(f"{before[1]} and {origin} set the same thing; leave one of them out")
        self[option.field] = (read, origin)

    def notes(self) -> list[str]:
        """A note for each older name."""
        newer = {option.field: option for option in reversed(OPTIONS) if not option.is_older}
        return [
            f"{origin} is an older name; write {newer[field].variable} in its place"
            + ("" if field not in self or self[field][1] == origin else f" (not used: {self[field][1]} wins)")
            for origin, field in self.older.items()
        ]


def _source(origin: str) -> str:
    """The kind of source of an origin: `file`, `environment` and so on."""
    return origin.partition(" ")[0]


def load(command_line: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a node, from all its sources. Raises `ConfigError`.

    `command_line` has values by the `key` of their option; None and () mean 'not given'. Its `profile`, or else
    `BZZZ_PROFILE`, names the profile; its `config`, or else `BZZZ_CONFIG`, the file.
    """
    environment = os.environ if environment is None else environment
    options = {key: value for key, value in (command_line or {}).items() if value is not None and value != ()}
    given = _Given()
    files = []
    for name in ("profile", "config"):
        if not str(options.get(name, name)).strip():
            raise ConfigError(f"flag --{name} is empty; name one, or leave it out")
    if profile := options.pop("profile", None) or environment.get(_PROFILE_VARIABLE):
        files.append(_profile_path(str(profile)))
        _take_file(given, files[0], f"profile {profile}")
    if file := options.pop("config", None) or environment.get(_FILE_VARIABLE):
        path = _config_path(file)
        files.append(path)
        _take_file(given, path, f"file {path}")
    _take_environment(given, environment)
    for key, value in options.items():
        given.set(_BY_KEY[key], key, value, f"flag --{'no-' if value is False else ''}{key.replace('_', '-')}")
    return replace(_settled(given), files=tuple(files))


def profiles() -> Mapping[str, Path]:
    """The profiles that ship with BZZZ, by name: beside this file in an installation, `config/` in a checkout."""
    folder = Path(__file__).with_name("profiles")
    if not folder.is_dir():
        folder = Path(__file__).parents[2] / "config"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _profile_path(profile: str) -> Path:
    known = profiles()
    if profile not in known:
        hint = nearest(profile, known) or f"; there are {', '.join(known) or 'none'}"
        raise ConfigError(f"there is no profile {profile!r}{hint} (a file of your own is named by --config)")
    return known[profile]


def _config_path(file: object) -> Path:
    try:
        return values.path(file)
    except ValueError as error:
        raise ConfigError(f"the configuration file: {error}") from None


def _take_file(given: _Given, path: Path, source: str) -> None:
    for name, value in flat(read_file(path), _SECTIONS):
        if (option := _BY_FILE_NAME.get(name)) is None:
            raise ConfigError(f"{source}: 'bzzz: {name}' is no setting of a node{nearest(name, _BY_FILE_NAME)}")
        if value is not None:
            given.set(option, name, value, f"{source}: {name}")


def _take_environment(given: _Given, environment: Mapping[str, str]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(_PREFIXES) or variable in (_FILE_VARIABLE, _PROFILE_VARIABLE):
            continue
        if (option := _BY_VARIABLE.get(variable)) is None:
            known = nearest(variable, [*_BY_VARIABLE, _FILE_VARIABLE, _PROFILE_VARIABLE])
            raise ConfigError(f"the environment sets {variable}, which is no setting of a node{known}")
        if environment[variable].strip():
            given.set(option, option.names[0], environment[variable], f"environment {variable}")


def _settled(given: _Given) -> Settings:
    """The settings from all sources: defaults that depend on other settings, contradictions refused, notes."""
    own = (one.name for one in fields(Settings) if one.name not in ("origins", "notes", "files"))
    settings = Settings(
        **{name: value for name, (value, _) in given.items()},
        origins={name: given[name][1] if name in given else DEFAULT for name in own},
    )
    if "data_dir" not in given:
        try:
            settings = replace(settings, data_dir=values.path(str(settings.data_dir)))
        except ValueError as error:
            raise ConfigError(f"{error}; name a data directory with --data-dir") from None
    if "name" not in given:
        settings = replace(settings, name=re.sub(r"[^A-Za-z0-9._-]", "-", platform.node())[:64] or "node")
    settings = _joined(settings)
    if "listen" not in given and (settings.open or settings.network_key):
        settings = replace(settings, listen=(LISTEN_ON_ALL,))
    _refuse_contradictions(settings)
    return _with_notes(settings, given.notes())


def _joined(settings: Settings) -> Settings:
    """The settings with the network of the join phrase, if there is one."""
    if settings.join is None:
        return settings
    origins, network = settings.origins, read_phrase(settings.join.reveal()).network
    if settings.network_key_file is not None:
        raise ConfigError(
            f"{origins['join']} and {origins['network_key_file']} set the same thing; leave one of them out"
        )
    if origins["network"] != DEFAULT and settings.network != network:
        raise ConfigError(
            f"{origins['network']}: the join phrase ({origins['join']}) is for the network {network!r}, not "
            f"{settings.network!r}; leave the name out"
        )
    return replace(settings, network=network, origins={**origins, "network": origins["join"]})


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
        if not (settings.open or settings.network_key or values.is_loopback_multiaddr(address)):
            raise ConfigError(
                f"{origins['listen']}: {address} is not on loopback, so anyone who reaches it could join the swarm; "
                "give the network a key ('bzzz network create'), or add --open (BZZZ_OPEN=true) if that is meant"
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
    if settings.provider_interval_hours >= settings.provider_expiry_hours:
        notes.append(
            f"provider_interval_hours ({settings.provider_interval_hours:g}) is not below provider_expiry_hours "
            f"({settings.provider_expiry_hours:g}): nodes with the same settings forget who provides what before they "
            "are told again"
        )
    return replace(settings, notes=tuple(notes))
