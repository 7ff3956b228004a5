"""Metrics as nobody should send them and somebody does: odd names, colliding labels, all kinds."""

from __future__ import annotations

import random

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as otlp
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA
NAMES = (
    "",
    "5xx",
    "http.method",
    "http-method",
    "http_method",
    "HTTP method",
    "le",
    "quantile",
    "job",
    "instance",
    "service",
    "__name__",
    "__address__",
    "exported_job",
    "otel_duplicate",
    "_",
    "__",
    "é",
    "日本",
    "😀",
    "a\nb",
    'a"b',
    "a\\b",
    "a\x00b",
    "a{b}",
    "k" * 60,
)
VALUES = (
    "",
    "plain",
    "two\nlines",
    'quo"te',
    "back\\slash",
    "ends with \\",
    "\x00",
    "\r\n",
    "\t",
    "日本 😀",
    "\u2028",
    "# EOF",
    "} 1",
    "v" * 300,
)
METRICS = (
    "app.requests",
    "app_requests",
    "app-requests",
    "app.requests.total",
    "app.requests_total",
    "app.requests.count",
    "app.requests.sum",
    "app.requests.bucket",
    "target.info",
    "target",
    "1st",
    "up",
    "日本",
    "a\nb",
    "💥",
    ":colon:",
    "x" * 200,
)
UNITS = ("", "1", "s", "By", "By/s", "{call}", "{call}/s", "ms", "%", "furlong", "\n", "1/s")
NUMBERS = (
    0,
    1,
    -1,
    1_000_001,
    2**53 + 1,
    2**63 - 1,
    0.1,
    1e300,
    5e-324,
    -0.0,
    123456789.123456789,
)


def hostile_export(rng: random.Random) -> otlp.ExportMetricsServiceRequest:
    """One sender's export, as random as it is valid."""
    request = otlp.ExportMetricsServiceRequest()
    for _ in range(rng.randint(1, 2)):
        resource = request.resource_metrics.add()
        name = rng.choice(("app", "日本", 'a"b', ""))
        resource.resource.attributes.add(key="service.name").value.string_value = name
        resource.resource.attributes.extend(_attributes(rng))
        scope = resource.scope_metrics.add()
        for _ in range(rng.randint(1, 6)):
            _add_metric(scope.metrics.add(), rng)
    return request


def _attributes(rng: random.Random) -> list[KeyValue]:
    attributes = []
    for name in rng.sample(NAMES, rng.randint(0, 6)):
        pair = KeyValue(key=name)
        match rng.randrange(5):
            case 0:
                pair.value.int_value = rng.randint(-5, 5)
            case 1:
                pair.value.bool_value = True
            case 2:
                pair.value.array_value.values.add().string_value = rng.choice(VALUES)
            case _:
                pair.value.string_value = rng.choice(VALUES)
        attributes.append(pair)
    return attributes


def _add_metric(metric: metrics_pb2.Metric, rng: random.Random) -> None:
    metric.name = rng.choice(METRICS)
    metric.unit = rng.choice(UNITS)
    add = rng.choice((_add_gauge, _add_sum, _add_histogram, _add_exponential))
    for _ in range(rng.randint(1, 4)):
        add(metric, rng)


def _add_gauge(metric: metrics_pb2.Metric, rng: random.Random) -> None:
    _set_number(metric.gauge.data_points.add(attributes=_attributes(rng)), rng)


def _add_sum(metric: metrics_pb2.Metric, rng: random.Random) -> None:
    metric.sum.aggregation_temporality = rng.choice((CUMULATIVE, DELTA))
    metric.sum.is_monotonic = rng.random() < 0.7
    point = metric.sum.data_points.add(attributes=_attributes(rng))
    point.as_int = abs(rng.choice((0, 1, 1_000_001, 2**53 + 1)))
    point.time_unix_nano = 10**18
    _add_exemplar(point, rng)


def _set_number(point: metrics_pb2.NumberDataPoint, rng: random.Random) -> None:
    number = rng.choice(NUMBERS)
    point.time_unix_nano = 10**18
    if isinstance(number, int):
        point.as_int = number
    else:
        point.as_double = number


def _add_histogram(metric: metrics_pb2.Metric, rng: random.Random) -> None:
    metric.histogram.aggregation_temporality = rng.choice((CUMULATIVE, DELTA))
    bounds = sorted({rng.choice((-1.0, 0.0, 0.1, 1.0, 5e-324, 1e300)) for _ in range(4)})
    if rng.random() < 0.2:
        bounds.append(float("inf"))
    counts = [rng.randint(0, 5) for _ in range(len(bounds) + 1)]
    if rng.random() < 0.3:
        bounds, counts = [], rng.choice(([], [7]))
    point = metric.histogram.data_points.add(
        attributes=_attributes(rng),
        time_unix_nano=10**18,
        count=sum(counts),
        sum=rng.uniform(-10, 10),
        explicit_bounds=bounds,
        bucket_counts=counts,
    )
    _add_exemplar(point, rng)


def _add_exponential(metric: metrics_pb2.Metric, rng: random.Random) -> None:
    data = metric.exponential_histogram
    data.aggregation_temporality = rng.choice((CUMULATIVE, DELTA))
    positive = [rng.randint(0, 9) for _ in range(rng.randint(0, 200))]
    negative = [rng.randint(0, 9) for _ in range(rng.randint(0, 5))]
    zeros = rng.randint(0, 3)
    point = data.data_points.add(
        attributes=_attributes(rng),
        time_unix_nano=10**18,
        scale=rng.randint(-10, 20),
        zero_count=zeros,
        count=sum(positive) + sum(negative) + zeros,
        sum=rng.uniform(-10, 10),
    )
    point.positive.offset = rng.randint(-2000, 2000)
    point.positive.bucket_counts.extend(positive)
    point.negative.offset = rng.randint(-50, 50)
    point.negative.bucket_counts.extend(negative)
    _add_exemplar(point, rng)


def _add_exemplar(
    point: metrics_pb2.NumberDataPoint
    | metrics_pb2.HistogramDataPoint
    | metrics_pb2.ExponentialHistogramDataPoint,
    rng: random.Random,
) -> None:
    if rng.random() < 0.5:
        point.exemplars.add(
            trace_id=rng.randbytes(16),
            span_id=rng.randbytes(8),
            as_double=rng.choice((0.05, 0.5, -3.0, 1e9)),
            time_unix_nano=10**18,
        )
