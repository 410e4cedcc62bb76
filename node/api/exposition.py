"""`/metrics`: a node's metrics in Prometheus' text format, version 0.0.4.

Only this file imports `prometheus_client`. That library adds the metrics of the process itself (memory, processor time,
open files), which it reads from /proc. Where there is no /proc, they are left out.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from node.metrics import Family, Histogram, Meters, MetricKind

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_process = ProcessCollector(registry=None)


def exposition(meters: Meters) -> bytes:
    """Every registered metric, and those of the process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(meters.families()))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            yield _metric(family)
        yield from _process.collect()

    def describe(self) -> Iterable[Metric]:
        return ()


def _metric(family: Family) -> Metric:
    metric: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    match family.kind:
        case MetricKind.COUNTER:
            metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
        case MetricKind.GAUGE:
            metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        case MetricKind.HISTOGRAM:
            metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in family.samples.items():
        if isinstance(value, Histogram):
            assert isinstance(metric, HistogramMetricFamily), family.name
            metric.add_metric(labels, _buckets(value), value.sum)
        else:
            assert not isinstance(metric, HistogramMetricFamily), family.name
            metric.add_metric(labels, float(value))
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """(upper bound, count of values up to it), ascending; the last bound is infinite."""
    bounds = [*(repr(bound) for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
