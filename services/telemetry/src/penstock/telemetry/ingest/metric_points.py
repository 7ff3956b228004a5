"""Which metric points can be kept: malformed ones are rejected one by one, those without a value
are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from opentelemetry.proto.metrics.v1 import metrics_pb2

NO_RECORDED_VALUE = metrics_pb2.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
FORWARD_ONLY_KINDS = ("exponential_histogram", "summary")
"""Kinds of metrics that are forwarded but not kept."""

Number = metrics_pb2.NumberDataPoint
Histogram = metrics_pb2.HistogramDataPoint


def remove_malformed_points(metric: metrics_pb2.Metric) -> int:
    """Remove the points of a metric that cannot be kept; returns how many were malformed."""
    kind = metric.WhichOneof("data")
    if kind is None or kind in FORWARD_ONLY_KINDS:
        return 0
    points = getattr(metric, kind).data_points
    with_value = [point for point in points if not point.flags & NO_RECORDED_VALUE]
    good = [point for point in with_value if metric.name and _is_well_formed(point)]
    if len(good) < len(points):
        # Copies, because clearing the field frees the points that it holds.
        copies = [type(point).FromString(point.SerializeToString()) for point in good]
        del points[:]
        points.extend(copies)
    return len(with_value) - len(good)


def has_forward_only(metrics: Iterable[metrics_pb2.Metric]) -> bool:
    """Whether some metric is of a kind that is forwarded but not kept."""
    return any(metric.WhichOneof("data") in FORWARD_ONLY_KINDS for metric in metrics)


def _is_well_formed(point: Number | Histogram) -> bool:
    if isinstance(point, Number):
        which = point.WhichOneof("value")
        return which == "as_int" or (which == "as_double" and math.isfinite(point.as_double))
    bounds, counts = point.explicit_bounds, point.bucket_counts
    counts_fit = len(counts) == len(bounds) + 1 and sum(counts) == point.count
    bounds_rise = all(low < high for low, high in pairwise(bounds))
    return math.isfinite(point.sum) and (not counts or counts_fit) and bounds_rise
