"""What detectors are shown of metrics: one value every 15 seconds, rates of counts, means of the
rest, instances together.
"""

from __future__ import annotations

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.telemetry.detection.downsampling import Downsampler
from penstock.telemetry.window.series import SeriesWindow

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


def total(at_s: float, value: int, *, grows: bool = True) -> metrics_pb2.Metric:
    metric = metrics_pb2.Metric(name="calls")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = CUMULATIVE, grows
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


def samples(*told: tuple[str, metrics_pb2.Metric]) -> list[tuple[str, float]]:
    window, sampler = SeriesWindow(), Downsampler()
    return [
        (key.metric, value)
        for instance, metric in told
        for series, point in window.take("router", instance, metric)
        for key, value in sampler.take(series, point)
    ]


def test_a_count_becomes_a_rate_over_all_instances() -> None:
    told = [
        ("1", total(0, 100)),
        ("2", total(0, 500)),
        ("1", total(10, 130)),
        ("2", total(15, 545)),
    ]
    assert samples(*told) == [("calls", 5.0)]


def test_a_restarted_count_does_not_go_backwards() -> None:
    assert samples(("1", total(0, 1000)), ("1", total(15, 3))) == [("calls", 0.0)]


def test_a_sum_that_may_fall_is_shown_as_a_gauge() -> None:
    told = [("1", total(0, 4, grows=False)), ("1", total(15, 8, grows=False))]
    assert samples(*told) == [("calls", 6.0)]


def test_a_histogram_becomes_its_mean_and_its_rate_and_silence_has_no_mean() -> None:
    told = [
        ("1", histogram(0, 0, 0.0)),
        ("1", histogram(20, 10, 5.0)),
        ("1", histogram(40, 10, 5.0)),
    ]
    assert samples(*told) == [("duration", 0.5), ("duration:rate", 0.5), ("duration:rate", 0.0)]
