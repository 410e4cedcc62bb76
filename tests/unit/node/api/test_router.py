"""The router: unknown paths and methods, and what the health report hears of failures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.request import Request
from tests.unit.node.api.served import API_OVER_NOTHING, ENVELOPE, Api


async def test_unknown_paths_and_methods_are_refused_with_what_there_is(api: Api) -> None:
    error = await api.refused(404, "GET", "/v1/envelopes")
    assert "did you mean /v1/envelope?" in error["message"]
    await api.refused(404, "GET", "/")
    await api.refused(404, "POST", "/v1/envelope/")
    response = await api("PATCH", ENVELOPE)
    assert response.status_code == 405
    assert response.headers["allow"] == "DELETE, GET, HEAD, POST, PUT"
    assert (await api("DELETE", "/health")).headers["allow"] == "GET, HEAD"
    assert (await api("OPTIONS", "/v1/peers")).status_code == 405


@given(st.binary(max_size=60), st.binary(max_size=60))
async def test_no_request_causes_a_500(query: bytes, value: bytes) -> None:
    """Hypothesis drives the middleware directly: any query string, any header value."""
    names = (b"accept", b"if-match", b"if-none-match", b"ucxl-parents", b"content-type", b"idempotency-key")
    for method in ("GET", "PUT", "DELETE"):
        for path in (ENVELOPE, "/v1/receipt", "/v1/pending"):
            request = Request(method=method, path=path, query=b"address=" + query, headers=dict.fromkeys(names, value))
            answer = await API_OVER_NOTHING(request)
            assert answer.status < 500, answer


async def test_an_api_that_fails_again_and_again_is_degraded_and_reveals_no_secrets(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def health_of_api() -> tuple[str, int, tuple[str, ...]]:
        (one,) = [one for one in api.node.health().components if one.component == "api"]
        return one.status, one.error_count, one.reasons

    for _ in range(5):
        await api.refused(400, "GET", "/v1/pending", params={"state": "nonsense"})
    assert health_of_api() == ("healthy", 0, ()), "an error of the client is no failure of the API"

    def fail(**_: object) -> None:
        raise RuntimeError("a secret")

    with monkeypatch.context() as patched:
        patched.setattr(api.node.peer_list, "page", fail)
        for _ in range(3):
            assert health_of_api()[0] == "healthy"
            await api.refused(500, "GET", "/v1/peers")
    status, errors, (reason,) = health_of_api()
    assert (status, errors) == ("degraded", 3)
    assert reason.startswith("requests fail, the last with: an internal error (RuntimeError)")
    assert "secret" not in reason
    for _ in range(2):
        await api("GET", "/v1/peers")
    assert health_of_api() == ("healthy", 3, ())
