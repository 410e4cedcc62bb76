"""The routes that write, on a node that has more to do than it can do in time."""

from contextlib import AsyncExitStack

from node.services.writes.admission import FREE
from tests.unit.node.api.served import ADDRESS, BARE, ENVELOPE, Api


async def test_a_node_that_is_busy_with_writes_refuses_one_that_would_be_late_and_still_answers_reads(api: Api) -> None:
    await api.put(b"before")
    async with AsyncExitStack() as stack:
        for _ in range(FREE):
            await stack.enter_async_context(api.node.admission.turn(1.0))
        for method in ("PUT", "POST", "DELETE"):
            response = await api(method, ENVELOPE, params={"address": f"{BARE}/*^/new", "timeout_ms": 1})
            assert response.status_code == 503, response.text
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["retryable"]
        assert (await api.get()).content == b"before"
        assert (await api("GET", "/health")).status_code == 200
        assert (await api.put(b"in time", ADDRESS))["sequence"] == 2
    assert (await api.get(f"{BARE}/*^/new")).status_code == 404
