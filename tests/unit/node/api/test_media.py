"""Media types: which form `Accept` asks for, and whether a body fits its type."""

import pytest

from node.api.media import DEFAULT_TYPE, ENVELOPE_TYPE, JSON_TYPE, preferred
from tests.unit.node.api.served import ADDRESS, ENVELOPE, Api


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, DEFAULT_TYPE),
        ("", DEFAULT_TYPE),
        ("*/*", DEFAULT_TYPE),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", DEFAULT_TYPE),
        ("application/json", JSON_TYPE),
        ("application/json, text/plain, */*", JSON_TYPE),
        ("Application/JSON; charset=utf-8", JSON_TYPE),
        ("application/json;q=0.5, */*", DEFAULT_TYPE),
        ("text/plain;q=0.5, application/json;q=0.9", JSON_TYPE),
        ("application/json;q=0", DEFAULT_TYPE),
        ("application/json;q=nonsense", DEFAULT_TYPE),
        (ENVELOPE_TYPE, ENVELOPE_TYPE),
        (f"application/json;q=0.3, {ENVELOPE_TYPE};q=0.4", ENVELOPE_TYPE),
        ("image/*", DEFAULT_TYPE),
    ],
)
def test_the_form_is_what_accept_asks_for_by_name(accept: str | None, form: str) -> None:
    assert preferred(accept) == form


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b"NaN"),
        ("application/ld+json; charset=utf-8", b"'x'"),
        ("application/json", b"[" * 500_000),
        ("text/plain", b"\xff\xfe"),
        ("text/markdown; charset=UTF-8", b"\xc3("),
        ("text/plain; charset=us-ascii", "ä".encode()),
    ],
)
async def test_a_body_that_is_not_what_its_type_says_is_refused(api: Api, media_type: str, body: bytes) -> None:
    headers = {"content-type": media_type}
    error = await api.refused(400, "PUT", ENVELOPE, params={"address": ADDRESS}, content=body, headers=headers)
    assert media_type in error["message"]
    assert (await api.get()).status_code == 404


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", b'{"a": [1, 2.5, 9' + b"9" * 5000 + b"]}"),
        ("text/plain; charset=latin-1", b"\xff"),
        ("text/plain; charset=punycode", b"\xff"),
        ("text/plain; charset=no-such", b"\xff"),
        ("application/octet-stream", b"\xff"),
        ('text/plain; title="a b"', b"x"),
        ("text/plain", b""),
    ],
)
async def test_a_body_that_may_be_what_its_type_says_is_taken(api: Api, media_type: str, body: bytes) -> None:
    await api.put(body, headers={"content-type": media_type})
    assert (await api.get()).headers["content-type"] == media_type
