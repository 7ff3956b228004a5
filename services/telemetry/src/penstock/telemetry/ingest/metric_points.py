"""Which metric points can be kept: a malformed one is refused alone, and what has no value says
nothing. Plain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from opentelemetry.proto.metrics.v1 import metrics_pb2

NO_VALUE = metrics_pb2.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
FORWARD_ONLY_KINDS = ("exponential_histogram", "summary")
Number = metrics_pb2.NumberDataPoint
Histogram = metrics_pb2.HistogramDataPoint


def remove_malformed_points(metric: metrics_pb2.Metric) -> int:
    """Take the points out of a metric that cannot be kept; gives how many were malformed."""
    kind = metric.WhichOneof("data")
    if kind is None or kind in FORWARD_ONLY_KINDS:
        return 0
    points = getattr(metric, kind).data_points
    said = [point for point in points if not point.flags & NO_VALUE]
    good = [point for point in said if metric.name and _well_formed(point)]
    if len(good) < len(points):
        kept = [type(point).FromString(point.SerializeToString()) for point in good]
        del points[:]
        points.extend(kept)
    return len(said) - len(good)


def has_forward_only(metrics: Iterable[metrics_pb2.Metric]) -> bool:
    """Whether some are of a kind that is forwarded only."""
    return any(metric.WhichOneof("data") in FORWARD_ONLY_KINDS for metric in metrics)


def _well_formed(point: Number | Histogram) -> bool:
    if isinstance(point, Number):
        which = point.WhichOneof("value")
        return which == "as_int" or (which == "as_double" and math.isfinite(point.as_double))
    bounds, counts = point.explicit_bounds, point.bucket_counts
    return (
        math.isfinite(point.sum)
        and (not counts or (len(counts) == len(bounds) + 1 and sum(counts) == point.count))
        and all(low < high for low, high in pairwise(bounds))
    )
