"""`/metrics` of a whole node in memory, read by a strict reader of our own and by that of the library."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from node import app
from node.api.exposition import CONTENT_TYPE, exposition
from node.api.http_metrics import HttpMetrics
from node.api.middleware import ApiAccess, Middleware
from node.api.router import router
from node.api.routes import RESOURCES
from node.config.settings import Settings
from node.dht.base import Backend, Provenance
from node.dht.call_metrics import (
    RATIO_SECONDS,
    SAMPLE,
    CallMetrics,
    CallOutcome,
    SampledCalls,
    outcome_of_error,
    outcome_of_read,
)
from node.environment import Environment
from node.metrics import Family, Histogram, Meters, MetricKind, gauge
from node.node import Node
from node.store.memory.store import MemoryStore
from protocols.errors import Conflict, Indeterminate, StorageFull, Unavailable
from protocols.keys import PrivateKey
from protocols.ucxl import key_of
from tests.unit.expositions import Read, read
from tests.unit.node.api.direct import Direct
from tests.until import until

ADDRESS = "ucxl://agent:role@project:task/*^/notes/a.md"
SEED = b"\x01" * 32
TOKEN = "a-token-that-is-not-guessed"


@asynccontextmanager
async def running(store: MemoryStore | None = None, **settings: object) -> AsyncIterator[Node]:
    world = Environment(
        key=PrivateKey.from_seed(SEED), network=None, store=store or MemoryStore(log_id="ab" * 8),
        now_ms=lambda: time.time_ns() // 1_000_000, chance=random.Random(0).random,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        node_settings = Settings(backend="mock", **{"name": "n1", **settings})  # type: ignore[arg-type]
        yield await nursery.start(app.run, world, node_settings)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(node: Node, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    app = Middleware(
        router(node),
        ApiAccess(is_loopback=True, token=token),
        now_ms=node.now_ms,
        metrics=HttpMetrics.of(node, RESOURCES),
    )
    async with httpx.AsyncClient(transport=Direct(app), base_url="http://127.0.0.1:8080") as http:
        yield http


async def scraped(http: httpx.AsyncClient) -> dict[str, Read]:
    response = await http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    found = read(response.text)
    theirs = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert {name.removesuffix("_total") for name in found} == set(theirs)
    return found


def value(families: dict[str, Read], name: str, /, **labels: str) -> float:
    family = name if name in families else name.rpartition("_")[0]
    return families[family].samples[name, tuple(sorted(labels.items()))]


async def probed(http: httpx.AsyncClient) -> None:
    """Wait until the resolver was probed, which is one get: the next probe is half a minute later."""

    async def is_probed() -> bool:
        return any(dict(labels)["operation"] == "get" for _, labels in await requests(http))

    await until(is_probed)


async def requests(http: httpx.AsyncClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return (await scraped(http))["bzzz_dht_requests_total"].samples


async def test_calls_are_counted_exactly_and_every_64th_sampled_one_is_timed() -> None:
    mock = {"backend": "mock", "outcome": "local"}
    async with running() as node, client(node) as http:
        await probed(http)
        for number in range(3):
            await http.put("/v1/envelope", params={"address": ADDRESS}, content=b"%d" % number)
        for _ in range(5 * SAMPLE + 7):
            await node.dht.get(key_of(ADDRESS))
        await node.dht.get(key_of(ADDRESS.replace("a.md", "absent")))
        await node.dht.history(key_of(ADDRESS))
        found = await scraped(http)
    assert value(found, "bzzz_dht_requests_total", operation="get", **mock) == 5 * SAMPLE + 9
    assert value(found, "bzzz_dht_requests_total", operation="put", **mock) == 3
    assert value(found, "bzzz_dht_requests_total", operation="history", **mock) == 1
    assert value(found, "bzzz_dht_request_duration_seconds_count", operation="get", **mock) == 5
    assert value(found, "bzzz_dht_request_duration_seconds_count", operation="history", **mock) == 1
    assert value(found, "bzzz_store_versions") == value(found, "bzzz_store_log_sequence") == 3
    assert value(found, "bzzz_dht_backend", backend="mock") == 1
    assert value(found, "process_resident_memory_bytes") > 1_000_000
    assert value(found, "process_open_fds") > 2


async def test_counts_outlive_a_change_of_flags() -> None:
    async with running() as node:
        for number in range(10):
            await node.dht.get(key_of(ADDRESS))
            node.dht.use_flags(node.flags.current)
            assert node.meters is not None
            found = read(exposition(node.meters).decode())
            count = value(found, "bzzz_dht_requests_total", backend="mock", operation="get", outcome="local")
            assert count == number + 1


async def test_a_call_that_fails_is_an_error_and_counts_once() -> None:
    store = MemoryStore(log_id="ab" * 8)
    async with running(store) as node, client(node) as http:
        await probed(http)
        put = await http.put("/v1/envelope", params={"address": ADDRESS}, content=b"x")
        assert put.status_code == 202

        async def broken(key: bytes) -> tuple[()]:
            raise Unavailable("the disk does not answer")

        store.heads = broken  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await node.dht.get(key_of(ADDRESS))
        found = await scraped(http)
    samples = found["bzzz_dht_requests_total"].samples
    gets = {dict(labels)["outcome"]: n for (_, labels), n in samples.items() if dict(labels)["operation"] == "get"}
    assert gets == {"local": 1, "unavailable": 1}
    assert value(found, "bzzz_dht_error_ratio", backend="mock") == pytest.approx(1 / 3)


async def test_names_invented_by_clients_become_no_label() -> None:
    async with running() as node, client(node) as http:
        for path in ("/one", "/two", '/"} 1', "/%0anew"):
            assert (await http.get(path)).status_code == 404
        assert (await http.request("BREW", "/health")).status_code == 405
        found = await scraped(http)
    requests = found["bzzz_http_requests_total"].samples
    assert {labels: n for (_, labels), n in requests.items()} == {
        (("code", "404"), ("method", "GET"), ("route", "other")): 4,
        (("code", "405"), ("method", "other"), ("route", "/health")): 1,
    }
    assert value(found, "bzzz_http_requests_in_progress") == 1, "this request"


async def test_names_that_need_escaping_come_back_as_they_were() -> None:
    name = 'a "name"\\with\nall of it'
    async with running(name=name) as node, client(node) as http:
        found = await scraped(http)
    ((labels,),) = ([labels for _, labels in found["bzzz_node_info"].samples],)
    assert dict(labels)["name"] == name


async def test_metrics_need_the_token_and_contain_no_secret() -> None:
    async with running() as node, client(node, TOKEN) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/metrics")).status_code == 401
        response = await http.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 200
        read(response.text)
        assert TOKEN not in response.text
        assert SEED.hex() not in response.text


async def test_without_metrics_the_answer_says_how_to_switch_them_on() -> None:
    async with running(metrics_enabled=False) as node, client(node) as http:
        await http.put("/v1/envelope", params={"address": ADDRESS}, content=b"x")
        assert (await http.get("/v1/envelope", params={"address": ADDRESS})).content == b"x"
        response = await http.get("/metrics")
        assert response.status_code == 404
        assert "BZZZ_METRICS_ENABLED=true" in response.json()["error"]["message"]


async def test_registered_metrics_are_exposed() -> None:
    async with running() as node, client(node) as http:
        assert node.meters is not None
        node.meters.register(lambda: [gauge("bzzz_resolver_cache_entries", "Entries of the cache.", 7)])
        assert value(await scraped(http), "bzzz_resolver_cache_entries") == 7


def test_a_histogram_counts_each_value_in_the_first_bucket_that_takes_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.5, 1.0, 1.5):
        histogram.observe(seconds)
    meters = Meters()
    meters.register(lambda: [Family("x_seconds", "How long.", MetricKind.HISTOGRAM, ("a",), {("b",): histogram})])
    found = read(exposition(meters).decode())
    counts = [value(found, "x_seconds_bucket", a="b", le=bound) for bound in ("0.1", "1.0", "+Inf")]
    assert counts == [2, 4, 5]
    assert value(found, "x_seconds_sum", a="b") == pytest.approx(3.1)


async def test_the_count_of_sampled_calls_never_goes_down() -> None:
    sampled = SampledCalls()
    sampled.until_sample -= 1
    assert sampled.count == 1
    sampled.counted_elsewhere += 1  # it was under way, and had another outcome
    assert sampled.count == 1
    sampled.until_sample -= 1
    assert sampled.count == 1
    sampled.until_sample -= 1
    assert sampled.count == 2


async def test_the_error_ratio_covers_the_last_minutes(autojump_clock: trio.testing.MockClock) -> None:
    call_metrics = CallMetrics()
    for _ in range(8):
        call_metrics.count(Backend.REAL, "get", CallOutcome.UNAVAILABLE)
        call_metrics.count(Backend.REAL, "get", CallOutcome.REFUSED)
    assert call_metrics.error_ratios() == {("real",): 0.5}
    await trio.sleep(RATIO_SECONDS / 2)
    call_metrics.error_ratios()
    await trio.sleep(RATIO_SECONDS)
    call_metrics.count(Backend.REAL, "get", CallOutcome.SWARM)
    assert call_metrics.error_ratios() == {("real",): 0.0}


def test_outcomes_follow_the_error_and_the_provenance() -> None:
    assert outcome_of_error(Indeterminate("")) is CallOutcome.INDETERMINATE
    assert outcome_of_error(StorageFull("")) is CallOutcome.FAILED
    assert outcome_of_error(Conflict("")) is CallOutcome.REFUSED
    assert outcome_of_error(ZeroDivisionError()) is CallOutcome.FAILED
    local = Provenance(Backend.MOCK, "local", 0.0, 1, 0, False)
    assert outcome_of_read(local) is CallOutcome.LOCAL
    assert outcome_of_read(local._replace(is_degraded=True)) is CallOutcome.FALLBACK
    assert outcome_of_read(local._replace(source="swarm")) is CallOutcome.SWARM
    assert outcome_of_read(local._replace(source="swarm", is_degraded=True)) is CallOutcome.PARTIAL


async def test_a_cancelled_call_is_counted_as_cancelled() -> None:
    call_metrics = CallMetrics()
    with trio.move_on_after(0), call_metrics.timing(Backend.REAL, "get"):
        await trio.sleep_forever()
    assert call_metrics.requests() == {("real", "get", "cancelled"): 1}
