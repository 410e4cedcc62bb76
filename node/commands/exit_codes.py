"""Exit codes of the commands, as `bzzz --help` and docs/operations.md list them."""

from collections.abc import Mapping
from typing import Any

FAILED = 1
"""Every failure that has no code of its own."""
WRONG_USE = 2
UNREACHABLE = 3
NOT_REPLICATED = 4
OUTPUT_FAILED = 5
NOT_THERE = 6
NOT_NOW = 7
CONFLICT = 8
BAD_ADDRESS = 9
INTERRUPTED = 130

_BY_UCXL_CODE = {"UCXL-400-INVALID_ADDRESS": BAD_ADDRESS, "UCXL-400-TEMPORAL_INVALID": BAD_ADDRESS}
_BY_STATUS = {404: NOT_THERE, 409: CONFLICT, 412: CONFLICT}


def of_refusal(status: int, error: Mapping[str, Any]) -> int:
    """The exit code for a node's answer with an HTTP status of 400 or more; `error` is its `error` object."""
    if error.get("retryable"):
        return NOT_NOW
    return _BY_UCXL_CODE.get(str(error.get("code"))) or _BY_STATUS.get(status, FAILED)
