"""The error tree: an error keeps its class over the wire."""

import re
from typing import Any

import pytest

from protocols import errors
from protocols.errors import BzzzError, ClockAhead, Internal, Malformed, NotFound, Rejected, Unavailable, from_code


def tree(root: type[BzzzError] = BzzzError) -> list[type[BzzzError]]:
    children = [child for child in root.__subclasses__() if child.__module__ == errors.__name__]
    return [root, *(kind for child in children for kind in tree(child))]


KINDS = tree()
BY_NAME = {kind.__name__: kind for kind in KINDS}
DRAWN = re.findall(r"^    ((?:│   |    )*)[├└]── (\w+) +(\d{3})?(.*)$", errors.__doc__ or "", re.MULTILINE)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert {name for _, name, _, _ in DRAWN} == set(BY_NAME) - {"BzzzError"}
    above = ["BzzzError"]
    for indent, name, status, _ in DRAWN:
        depth = len(indent) // 4 + 1
        parent = BY_NAME[above[depth - 1]]
        assert BY_NAME[name].__bases__ == (parent,), name
        assert BY_NAME[name]("").status == int(status), name
        del above[depth:]
        above.append(name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_is_one_of_ucxl(kind: type[BzzzError]) -> None:
    assert re.fullmatch(r"UCXL-[45]\d\d-[A-Z_]+", kind.code)
    assert kind.code.startswith(f"UCXL-{kind('').status}-")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_made_from_its_code_is_what_its_receiver_must_know(kind: type[BzzzError]) -> None:
    details: dict[str, Any] = {"reason": "clock_ahead"} if kind is ClockAhead else {"field": "version"}
    sent = kind("what happened", **details)
    back = from_code(sent.code, sent.message, sent.details)
    assert isinstance(sent, type(back)) or type(back) in type(sent).__subclasses__()
    assert (back.code, back.message, dict(back.details)) == (sent.code, sent.message, details)
    assert (back.status, back.retryable) == (sent.status, sent.retryable)


def test_a_refusal_for_the_clock_is_retryable_and_other_refusals_are_not() -> None:
    assert ClockAhead("").retryable
    assert not Rejected("").retryable
    assert [kind.__name__ for kind in KINDS if kind.retryable] == [
        "ClockAhead", "TooManyRequests", "Unavailable", "Indeterminate", "StorageFull",
    ]  # fmt: skip


def test_a_code_that_is_not_known_here_is_kept() -> None:
    error = from_code("UCXL-418-TEAPOT", "short and stout", {"code": "mine", "pot": 1})
    assert type(error) is Internal
    assert error.details == {"code": "UCXL-418-TEAPOT", "pot": 1}
    assert error.message == "short and stout"


@pytest.mark.parametrize("name", ["self", "message", "code", "details", "args", ""])
@pytest.mark.parametrize("code", ["UCXL-503-UNAVAILABLE", "UCXL-999-UNKNOWN"])
def test_details_from_a_peer_may_have_any_names(code: str, name: str) -> None:
    error = from_code(code, "what happened", {name: "x"})
    assert error.message == str(error) == "what happened"
    assert error.details[name] in ("x", code)


def test_callers_can_catch_by_what_to_do_next() -> None:
    assert isinstance(from_code("UCXL-404-TEMPORAL_OUT_OF_RANGE", "", {}), NotFound)
    assert isinstance(from_code("UCXL-400-INVALID_ADDRESS", "", {}), Malformed)
    assert isinstance(from_code("UCXL-422-UNPROCESSABLE", "", {"reason": "clock_ahead"}), Rejected)
    assert isinstance(from_code("UCXL-503-UNAVAILABLE", "", {}), Unavailable)
