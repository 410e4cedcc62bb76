"""The YAML file of a node's settings: read whole, everything under `bzzz:`, nothing dropped in silence.

PyYAML answers the last of two equal keys and Python objects for tags; here a double is an error, and only plain data
is read. What goes wrong is a `ConfigError` that names the file, and the line where one is known.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml


class ConfigError(Exception):
    """The node cannot do with what it was told; the message is one line that says why and what to write."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message))


def read_file(path: Path) -> Mapping[str, Any]:
    """What stands under `bzzz:` ({} when nothing does). Raises `ConfigError`."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoDoubles)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read ({reason(error)})") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"the configuration file {path}{line}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"the configuration file {path} is not YAML ({' '.join(str(error).split())})") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"the configuration file {path} is not a mapping; everything in it stands under 'bzzz:'")
    for name in document:
        if name != "bzzz":
            raise ConfigError(f"file {path}: {name!r} is not known at the top; everything stands under 'bzzz:'")
    section = document["bzzz"] if document else None
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"file {path}: 'bzzz:' is not a mapping of names to values")
    return section or {}


def refuse_torn(path: Path) -> None:
    """Refuse a file that looks half-written: empty, cut off in a line, or with a section that has nothing in it.

    At a start an empty file says nothing, and that is well; when a file changes under a node that runs, somebody may
    just be writing it, and 'nothing said' would undo what it said before. Raises `ConfigError`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read ({reason(error)})") from None
    if not text.strip():
        raise ConfigError(f"the configuration file {path} is empty, as one that is just being written")
    if not text.endswith("\n"):
        line = text.count("\n") + 1
        raise ConfigError(f"the configuration file {path}, line {line}: cut off; its last line ends in no line break")
    section = read_file(path)
    if empty := next((name for name in _empty(section)), None if section else "bzzz"):
        raise ConfigError(f"the configuration file {path} is half-written: nothing stands under '{empty}:'")


def _empty(section: Mapping[Any, Any], above: str = "") -> Iterable[str]:
    for key, value in section.items():
        if value is None:
            yield f"{above}{key}"
        elif isinstance(value, dict):
            yield from _empty(value, f"{above}{key}.")


def flat(section: Mapping[Any, Any], sections: frozenset[str], above: str = "") -> Iterable[tuple[str, Any]]:
    """Names with a dot for each level, and their values; only the levels in `sections` are gone into."""
    for key, value in section.items():
        name = f"{above}{key}"
        if name in sections and (value is None or isinstance(value, dict)):
            yield from flat(value or {}, sections, f"{name}.")
        else:
            yield name, value


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, in a few words."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"


class _NoDoubles(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                problem = f"the key {key!r} " + ("stands there twice" if isinstance(key, str) else "is not text")
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
