"""Query parameters, and the errors for wrong ones."""

from urllib.parse import quote

import pytest

from node.api.routes import RESOURCES
from tests.unit.node.api.served import ADDRESS, BARE, ENVELOPE, Api


async def test_an_address_with_a_plus_and_raw_signs_arrives_as_it_was_written(api: Api) -> None:
    await api.put(b"x", BARE)
    raw = f"{ENVELOPE}?address={BARE}/2099-01-01T00:00:00+02:00"
    assert (await api("GET", raw)).content == b"x"
    await api.put(b"y", f"{BARE}/*^/a%20b")
    assert (await api("GET", f"{ENVELOPE}?address={quote(f'{BARE}/*^/a%20b')}")).content == b"y"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "address"),
        ({"address": ""}, "address"),
        ({"address": "http://x"}, "scheme"),
        ({"address": "ucxl://a:b@c:d/notes.md"}, "temporal"),
        ({"address": "ucxl://any:b@c:d"}, "address"),
        ({"address": ADDRESS, "consistency": "strong"}, "consistency"),
        ({"address": ADDRESS, "digest": "xyz"}, "digest"),
        ({"address": ADDRESS, "timeout_ms": "0"}, "timeout_ms"),
        ({"address": ADDRESS, "timeout_ms": "60001"}, "timeout_ms"),
        ({"address": ADDRESS, "timeout_ms": "-1"}, "timeout_ms"),
        ({"address": ADDRESS, "timeout_ms": "1e3"}, "timeout_ms"),
        ({"address": ADDRESS, "timeout_ms": "٣"}, "timeout_ms"),
        ({"addres": ADDRESS}, "addres"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_by_name(api: Api, query: dict[str, str], field: str) -> None:
    error = await api.refused(400, "GET", ENVELOPE, params=query)
    assert error["details"]["field"] == field
    assert error["details"]["expected"]
    assert error["retryable"] is False


async def test_the_nearest_parameter_is_named_and_doubles_are_refused(api: Api) -> None:
    error = await api.refused(400, "GET", f"{ENVELOPE}?adress=x")
    assert "did you mean address?" in error["message"]
    error = await api.refused(400, "GET", f"{ENVELOPE}?address=x&address=y")
    assert "more than once" in error["message"]
    for path, methods in RESOURCES.items():
        for method in methods:
            await api.refused(400, method, f"{path}?nonsense=1")
