"""Request headers, and the errors for wrong ones."""

from hashlib import sha256

import pytest

from node.api.headers import tags
from protocols.errors import InvalidPayload
from tests.unit.node.api.served import ADDRESS, ENVELOPE, Api


async def test_bad_utf8_is_refused_wherever_it_stands(api: Api) -> None:
    for target in (f"{ENVELOPE}?address=%ff%fe", f"{ENVELOPE}?%c3%28=x"):
        error = await api.refused(400, "GET", target)
        assert "UTF-8" in error["message"]
    for name in ("idempotency-key", "ucxl-parents", "if-match", "content-type", "ucxl-meta-x"):
        headers = [(name.encode(), b"\xff\xfe")]
        error = await api.refused(400, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"", headers=headers)
        assert "UTF-8" in error["message"]
    await api.refused(404, "GET", "/v1/%ff%fe")


async def test_a_content_type_that_is_none_is_refused(api: Api) -> None:
    headers = {"content-type": "text"}
    error = await api.refused(400, "PUT", ENVELOPE, params={"address": ADDRESS}, content=b"", headers=headers)
    assert error["details"]["field"] == "Content-Type"


def test_digests_are_read_with_and_without_quotes_and_nothing_else_is() -> None:
    one, two = sha256(b"1").hexdigest(), sha256(b"2").hexdigest()
    assert tags("x", f' "{one}" ,{two.upper()}, W/"{one}"') == (bytes.fromhex(one), bytes.fromhex(two))
    assert tags("x", " , ") == ()
    for wrong in ("x", one[:-1], f'"{one}', f"{one} {two}", "*"):
        with pytest.raises(InvalidPayload):
            tags("x", wrong)
