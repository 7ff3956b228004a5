"""What detectors are shown of metrics: one value every 15 seconds, rates of counters, means of the
rest, over all instances.
"""

from __future__ import annotations

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.telemetry.detection.downsampling import Downsampler
from penstock.telemetry.window.series import SeriesWindow

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


def total(at_s: float, value: int, *, grows: bool = True) -> metrics_pb2.Metric:
    metric = metrics_pb2.Metric(name="calls")
    metric.sum.aggregation_temporality = CUMULATIVE
    metric.sum.is_monotonic = grows
    metric.sum.data_points.add(time_unix_nano=int(at_s * 1e9), as_int=value)
    return metric


def histogram(at_s: float, count: int, sum_s: float) -> metrics_pb2.Metric:
    metric = metrics_pb2.Metric(name="duration")
    metric.histogram.aggregation_temporality = CUMULATIVE
    metric.histogram.data_points.add(
        time_unix_nano=int(at_s * 1e9),
        count=count,
        sum=sum_s,
        bucket_counts=[count, 0],
        explicit_bounds=[1.0],
    )
    return metric


def samples(*reports: tuple[str, metrics_pb2.Metric]) -> list[tuple[str, float]]:
    """(metric, value) of the samples that reports of (instance, metric) give."""
    window, downsampler = SeriesWindow(), Downsampler()
    return [
        (key.metric, value)
        for instance, metric in reports
        for series, point in window.record("router", instance, metric, 0.0)
        for key, value in downsampler.add(series, point)
    ]


def test_a_counter_becomes_a_rate_over_all_instances() -> None:
    reports = [
        ("1", total(0, 100)),
        ("2", total(0, 500)),
        ("1", total(10, 130)),
        ("2", total(15, 545)),
    ]
    assert samples(*reports) == [("calls", 5.0)]


def test_a_restarted_counter_does_not_go_backwards() -> None:
    assert samples(("1", total(0, 1000)), ("1", total(15, 3))) == [("calls", 0.0)]


def test_a_sum_that_may_fall_becomes_a_mean() -> None:
    reports = [("1", total(0, 4, grows=False)), ("1", total(15, 8, grows=False))]
    assert samples(*reports) == [("calls", 6.0)]


def test_a_histogram_becomes_its_mean_and_its_rate() -> None:
    reports = [("1", histogram(0, 0, 0.0)), ("1", histogram(20, 10, 5.0))]
    assert samples(*reports) == [("duration", 0.5), ("duration:rate", 0.5)]


def test_an_interval_without_observations_has_a_rate_but_no_mean() -> None:
    reports = [("1", histogram(0, 0, 0.0)), ("1", histogram(20, 0, 0.0))]
    assert samples(*reports) == [("duration:rate", 0.0)]
