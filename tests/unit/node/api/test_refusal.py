"""Errors as answers: the headers of each kind."""

import json

from node.api.refusal import TooSlow, refusal, retry_after
from protocols.errors import BzzzError, ClockAhead, Deleted, MethodNotAllowed, Unauthenticated, Unavailable


def headers_of(error: BzzzError) -> dict[str, str]:
    response = refusal(error, path="/x", request_id="r1", now_ms=0)
    body = json.loads(response.body)["error"]
    assert (response.status, body["code"], body["request_id"]) == (error.status, error.code, "r1")
    return dict(response.headers)


def test_each_kind_of_error_has_its_headers() -> None:
    plain = {"Content-Type": "application/json"}
    assert headers_of(TooSlow("late")) == plain
    assert headers_of(Unavailable("busy", retry_after_ms=1500)) == {**plain, "Retry-After": "2"}
    assert headers_of(Unauthenticated("no")) == {**plain, "WWW-Authenticate": 'Bearer realm="bzzz"'}
    assert headers_of(MethodNotAllowed("no", allow=["GET", "HEAD"])) == {**plain, "Allow": "GET, HEAD"}
    assert headers_of(Deleted("gone", heads=["ab" * 32])) == {**plain, "ETag": f'"{"ab" * 32}"'}


def test_retry_after_is_given_where_it_is_known() -> None:
    assert retry_after(ClockAhead("", ahead_ms=70_500)) == 11
    assert retry_after(Unavailable("", retry_after_ms=1)) == 1
    assert retry_after(Unavailable("")) is None
