"""Which metric points can be kept: malformed ones are rejected one by one, those without a value
end their series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.telemetry.window.series import has_no_value

FORWARD_ONLY_KINDS = ("summary",)
"""Kinds of metrics that are forwarded but not kept."""

MAX_SCALE = 20
"""Of exponential histograms, as their data model bounds it; the lowest is -10."""

Number = metrics_pb2.NumberDataPoint
Histogram = metrics_pb2.HistogramDataPoint
Exponential = metrics_pb2.ExponentialHistogramDataPoint
Point = Number | Histogram | Exponential


def remove_malformed_points(metric: metrics_pb2.Metric) -> int:
    """Remove the points of a metric that cannot be kept; returns how many were malformed."""
    kind = metric.WhichOneof("data")
    if kind is None or kind in FORWARD_ONLY_KINDS:
        return 0
    points = getattr(metric, kind).data_points
    malformed = [
        index
        for index, point in enumerate(points)
        if not metric.name or not (has_no_value(point) or _is_well_formed(point))
    ]
    for index in reversed(malformed):
        del points[index]
    return len(malformed)


def has_forward_only(metrics: Iterable[metrics_pb2.Metric]) -> bool:
    """Whether some metric is of a kind that is forwarded but not kept."""
    return any(metric.WhichOneof("data") in FORWARD_ONLY_KINDS for metric in metrics)


def _is_well_formed(point: Point) -> bool:
    match point:
        case Number():
            which = point.WhichOneof("value")
            return which == "as_int" or (which == "as_double" and math.isfinite(point.as_double))
        case Histogram():
            return math.isfinite(point.sum) and _buckets_fit(point)
        case _:
            return math.isfinite(point.sum) and _exponential_fits(point)


def _buckets_fit(point: Histogram) -> bool:
    """Whether there is one count more than rising bounds, or no bucket at all."""
    bounds, counts = point.explicit_bounds, point.bucket_counts
    if not counts:
        return not bounds
    return (
        len(counts) == len(bounds) + 1
        and sum(counts) == point.count
        and not any(math.isnan(bound) for bound in bounds)
        and all(low < high for low, high in pairwise(bounds))
    )


def _exponential_fits(point: Exponential) -> bool:
    counted = point.zero_count + _sum(point.positive.bucket_counts)
    counted += _sum(point.negative.bucket_counts)
    return -10 <= point.scale <= MAX_SCALE and counted == point.count


def _sum(counts: Sequence[int]) -> int:
    return sum(counts)
