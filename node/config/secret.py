"""Secrets in the settings: a text that is never shown, and its readers."""

from node.config import values
from node.config.file import read_limited, reason

KEY_FILE_BYTES_MAX = 4096


class Secret:
    """A text that reads as stars in a log, an error and a listing."""

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


def token(value: object) -> Secret:
    """A bearer token, without the space around it."""
    if not isinstance(value, str) or not value.strip() or not all("!" <= letter <= "~" for letter in value.strip()):
        raise ValueError("the token is empty, or has spaces or other characters that no header can carry")
    return Secret(value.strip())


def token_file(value: object) -> Secret:
    """The bearer token that is the content of a file."""
    path = values.path(value)
    try:
        content = read_limited(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file {path} cannot be read ({reason(error)})") from None
    return token(content)


def network_key_file(value: object) -> Secret:
    """The key in a `swarm.key`, as 64 hex digits."""
    from protocols.errors import InvalidPayload
    from protocols.network_key import read_key_file

    path = values.path(value)
    try:
        with path.open("rb") as file:
            return Secret(read_key_file(file.read(KEY_FILE_BYTES_MAX)).hex())
    except OSError as error:
        raise ValueError(f"the network key file {path} cannot be read ({reason(error)})") from None
    except InvalidPayload as error:
        raise ValueError(f"{path} is {error.message}") from None


def join_phrase(value: object) -> Secret:
    """A join phrase, checked."""
    from protocols.errors import InvalidPayload
    from protocols.network_key import read_phrase

    text = values.text(value)
    try:
        read_phrase(text)
    except InvalidPayload as error:
        raise ValueError(error.message) from None
    return Secret(text)


def join_phrase_file(value: object) -> Secret:
    """The join phrase that is the content of a file."""
    path = values.path(value)
    try:
        return join_phrase(read_limited(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the file {path} with the join phrase cannot be read ({reason(error)})") from None
