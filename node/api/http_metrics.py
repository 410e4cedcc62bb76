"""Metrics of the HTTP API: requests by route, method and status, and how long they took.

An unknown path is counted as `other`, and so is a method that no route takes: a client must not be able to make labels.
"""

from collections.abc import Iterable, Mapping

from node.api.paths import Paths
from node.metrics import Family, Histogram, MetricKind, gauge
from node.node import Node

OTHER = "other"
METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class HttpMetrics:
    """The middleware reports each request, when it begins and when it ends."""

    def __init__(self, routes: Iterable[str]) -> None:
        self._paths = Paths(routes)
        self._requests: dict[tuple[str, ...], int] = {}
        self._durations: dict[tuple[str, ...], Histogram] = {}
        self._in_progress = 0

    @classmethod
    def of(cls, node: Node, routes: Iterable[str]) -> "HttpMetrics | None":
        """Make them and register them with a node; None where metrics are off."""
        if node.meters is None:
            return None
        metrics = cls(routes)
        node.meters.register(metrics.families)
        return metrics

    def begun(self) -> None:
        self._in_progress += 1

    def ended(self, path: str, method: str, status: int, seconds: float) -> None:
        """`status` is 0 when the client left before the answer began."""
        self._in_progress -= 1
        route = self._paths.find(path) or OTHER
        method = method if method in METHODS else OTHER
        key = (route, method, str(status))
        self._requests[key] = self._requests.get(key, 0) + 1
        duration = self._durations.get((route, method))
        if duration is None:
            duration = self._durations[route, method] = Histogram(BOUNDS)
        duration.observe(seconds)

    def families(self) -> list[Family]:
        requests: Mapping[tuple[str, ...], float] = dict(sorted(self._requests.items()))
        return [
            Family(
                "bzzz_http_requests_total", "Requests to the API that ended; code 0: the client was gone before.",
                MetricKind.COUNTER, ("route", "method", "code"), requests,
            ),
            Family(
                "bzzz_http_request_duration_seconds", "How long requests to the API took.",
                MetricKind.HISTOGRAM, ("route", "method"), dict(sorted(self._durations.items())),
            ),
            gauge("bzzz_http_requests_in_progress", "Requests to the API under way.", self._in_progress),
        ]  # fmt: skip
