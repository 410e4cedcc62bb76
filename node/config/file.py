"""The YAML file of a node's settings: everything in it is under `bzzz:`, and nothing in it is silently ignored.

PyYAML takes the last of two equal keys, and makes Python objects of tags; here a duplicate key is an error, and only
plain data is read. An error is a `ConfigError` that names the file, and the line where it is known.
"""

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from protocols.printable import printable

_BYTES_MAX = 1_048_576


class ConfigError(Exception):
    """The configuration is wrong; the message is one line that says why and what to write instead."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def read_file(path: Path) -> Mapping[str, Any]:
    """The mapping under `bzzz:` ({} when there is none). Raises `ConfigError`."""
    try:
        document = yaml.load(_text(path), Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"the configuration file {path}{line}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"the configuration file {path} is not YAML ({' '.join(str(error).split())})") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"the configuration file {path} is not a mapping; everything in it must be under 'bzzz:'")
    for name in document:
        if name != "bzzz":
            raise ConfigError(f"file {path}: {name!r} is unknown at the top level; everything must be under 'bzzz:'")
    section = document["bzzz"] if document else None
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"file {path}: 'bzzz:' is not a mapping of names to values")
    return section or {}


def refuse_torn(path: Path) -> None:
    """Refuse a file that looks half-written: empty, cut off within a line, or with an empty section.

    At a start an empty file is fine. When a file changes while a node runs, an editor may still be writing it, and an
    empty file would reset every setting. Raises `ConfigError`.
    """
    text = _text(path)
    if not text.strip():
        raise ConfigError(f"the configuration file {path} is empty, like a file that is still being written")
    if not text.endswith("\n"):
        line = text.count("\n") + 1
        raise ConfigError(f"the configuration file {path}, line {line}: cut off: the last line has no line break")
    section = read_file(path)
    if empty := next((name for name in _empty(section)), None if section else "bzzz"):
        raise ConfigError(f"the configuration file {path} is half-written: '{empty}:' is empty")


def read_limited(path: Path) -> str:
    """The text of a small file. Raises `OSError`, also for a file that is too large or has no end (/dev/zero), and
    `UnicodeDecodeError`."""
    with path.open("rb") as file:
        content = file.read(_BYTES_MAX + 1)
    if len(content) > _BYTES_MAX:
        raise OSError(errno.EFBIG, f"it has more than {_BYTES_MAX} bytes")
    return content.decode("utf-8").replace("\r\n", "\n")


def _text(path: Path) -> str:
    try:
        return read_limited(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read ({reason(error)})") from None


def _empty(section: Mapping[Any, Any], above: str = "") -> Iterable[str]:
    for key, value in section.items():
        if value is None:
            yield f"{above}{key}"
        elif isinstance(value, dict):
            yield from _empty(value, f"{above}{key}.")


def flat(section: Mapping[Any, Any], sections: frozenset[str], above: str = "") -> Iterable[tuple[str, Any]]:
    """Names with a dot for each level, and their values. Only the levels in `sections` are flattened."""
    for key, value in section.items():
        name = f"{above}{key}"
        if name in sections and (value is None or isinstance(value, dict)):
            yield from flat(value or {}, sections, f"{name}.")
        else:
            yield name, value


def reason(error: OSError | UnicodeDecodeError) -> str:
    """The reason why a file cannot be read, in a few words."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                problem = f"the key {key!r} " + ("is there twice" if isinstance(key, str) else "is not text")
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
