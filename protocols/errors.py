"""UCXL codes, and the error tree that maps to them (`docs/ucxl.md`, 'Codes').

Errors are named for what the caller does next:

    BzzzError
    ├── Malformed              400  the caller, or a peer, broke the protocol
    │   ├── InvalidAddress     400  INVALID_ADDRESS
    │   ├── InvalidTemporal    400  TEMPORAL_INVALID
    │   └── InvalidPayload     400  INVALID_PAYLOAD
    ├── Unauthenticated        401  credentials are missing or wrong
    ├── Forbidden              403  not from this origin, or not for this author
    ├── NotFound               404  none of the nodes that should have it has it
    │   ├── Deleted            404  there is a tombstone; the history remains
    │   └── OutOfRange         404  TEMPORAL_OUT_OF_RANGE
    ├── MethodNotAllowed       405
    ├── Conflict               409  read again, then decide
    ├── Rejected               422  do not send this again
    │   ├── BadSignature       422
    │   ├── UnsupportedFormat  422
    │   ├── UnknownParents     422
    │   ├── NotLater           422  not later than one of its parents
    │   └── ClockAhead         422  retryable: too far ahead of the receiver's clock
    ├── TooLarge               413
    ├── TooManyRequests        429  retryable
    ├── Internal               500
    ├── Unavailable            503  retryable: try later
    ├── Indeterminate          504  retryable: the outcome is unknown; ask by digest, then try again
    └── StorageFull            507  retryable, once there is space

An error crosses the wire and the API as its code, message, details and retryable; `from_code` gives the class back.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

OK = "UCXL-200-OK"
CREATED = "UCXL-201-CREATED"
ACCEPTED = "UCXL-202-ACCEPTED"
NO_CONTENT = "UCXL-204-NO_CONTENT"


class BzzzError(Exception):
    """The root class. `message` says what happened and what to do; `details` has what a program needs."""

    code: ClassVar[str] = "UCXL-500-INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, /, **details: Any) -> None:
        """`details` may come from a peer, so any name is allowed, that of the parameter included."""
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details

    @property
    def status(self) -> int:
        """The HTTP status in the code."""
        return int(self.code.split("-", 2)[1])


class Malformed(BzzzError):
    code = "UCXL-400-INVALID_PAYLOAD"


class InvalidAddress(Malformed):
    code = "UCXL-400-INVALID_ADDRESS"


class InvalidTemporal(Malformed):
    code = "UCXL-400-TEMPORAL_INVALID"


class InvalidPayload(Malformed):
    code = "UCXL-400-INVALID_PAYLOAD"


class Unauthenticated(BzzzError):
    code = "UCXL-401-UNAUTHENTICATED"


class Forbidden(BzzzError):
    code = "UCXL-403-FORBIDDEN"


class NotFound(BzzzError):
    code = "UCXL-404-NOT_FOUND"


class Deleted(NotFound):
    """`details['deleted']` is True, and `details['digest']` names the tombstone."""


class OutOfRange(NotFound):
    """`details['versions']` says how many versions there are."""

    code = "UCXL-404-TEMPORAL_OUT_OF_RANGE"


class MethodNotAllowed(BzzzError):
    code = "UCXL-405-METHOD_NOT_ALLOWED"


class Conflict(BzzzError):
    code = "UCXL-409-CONFLICT"


class TooLarge(BzzzError):
    code = "UCXL-413-TOO_LARGE"


class Rejected(BzzzError):
    code = "UCXL-422-UNPROCESSABLE"


class BadSignature(Rejected):
    pass


class UnsupportedFormat(Rejected):
    pass


class UnknownParents(Rejected):
    pass


class NotLater(Rejected):
    pass


class ClockAhead(Rejected):
    """`details['ahead_ms']` says by how much. `details['reason']` is 'clock_ahead', which identifies it on the wire."""

    retryable = True


class TooManyRequests(BzzzError):
    code = "UCXL-429-TOO_MANY_REQUESTS"
    retryable = True


class Internal(BzzzError):
    code = "UCXL-500-INTERNAL"


class Unavailable(BzzzError):
    code = "UCXL-503-UNAVAILABLE"
    retryable = True


class Indeterminate(BzzzError):
    """`details['digest']` (hex) names the version that may have been written."""

    code = "UCXL-504-INDETERMINATE"
    retryable = True


class StorageFull(BzzzError):
    code = "UCXL-507-STORAGE_FULL"
    retryable = True


_BY_CODE: dict[str, type[BzzzError]] = {
    kind.code: kind
    for kind in (
        InvalidAddress, InvalidTemporal, InvalidPayload, Unauthenticated, Forbidden, NotFound, OutOfRange,
        MethodNotAllowed, Conflict, TooLarge, Rejected, TooManyRequests, Internal, Unavailable, Indeterminate,
        StorageFull,
    )
}  # fmt: skip


def from_code(code: str, message: str, details: Mapping[str, Any]) -> BzzzError:
    """The error of a code. An unknown code is an `Internal` that keeps the code in its details."""
    if details.get("reason") == "clock_ahead":
        return ClockAhead(message, **details)
    kind = _BY_CODE.get(code)
    return kind(message, **details) if kind else Internal(message, **{**details, "code": code})
