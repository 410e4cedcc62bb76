"""The version of this program, and how it introduces itself to other nodes."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed


def version() -> str:
    """The version that is installed; 'unknown' in a checkout that is not."""
    try:
        return _installed("bzzz")
    except PackageNotFoundError:
        return "unknown"


def agent() -> str:
    """The name and version of this program, as peers are told it."""
    return f"bzzz/{version()}"
