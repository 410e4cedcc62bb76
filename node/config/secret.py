"""Secrets in the settings: a text that is never shown, and its readers."""

from node.config import values
from node.config.file import read_limited, reason


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
