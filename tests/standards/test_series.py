"""Cases 25 to 28 and their kinds: series as Prometheus shows them, and how long."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.telemetry.export.exposition import number_text
from penstock.telemetry.window.histograms import (
    Exponential,
    Totals,
    increase,
    quantile_of,
    read_exponential,
)
from penstock.telemetry.window.series import EXPIRY_S, SeriesWindow

from .exports import CUMULATIVE, DELTA, Intake, counter, gauge


@pytest.mark.standard_case(25)
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1_000_001, "1000001"),
        (2**53 + 1, "9007199254740993"),
        (123456789.125, "123456789.125"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (3.0, "3"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_a_number_is_written_in_its_shortest_exact_form(number: float, text: str) -> None:
    assert number_text(number) == text
    if math.isfinite(number):
        assert float(text) == float(number)


@pytest.mark.standard_case(25)
async def test_a_counter_keeps_every_digit() -> None:
    intake = Intake()
    await intake.metrics(counter("app.calls", 1_234_567_891))
    assert any(line.endswith(" 1234567891") for line in intake.page())


@pytest.mark.standard_case(25)
async def test_increments_of_whole_numbers_stay_exact() -> None:
    intake = Intake()
    for _ in range(3):
        metric = counter("app.calls", 2**53 + 1)
        metric.sum.aggregation_temporality = DELTA
        await intake.metrics(metric)
    assert any(line.endswith(f" {3 * (2**53 + 1)}") for line in intake.page())


@pytest.mark.standard_case(26)
async def test_attributes_that_get_the_same_name_are_joined() -> None:
    intake = Intake()
    await intake.metrics(
        gauge("heat", 1.0, [("http.method", "a"), ("http-method", "b"), ("http_method", "c")])
    )
    (line,) = [line for line in intake.page() if line.startswith("heat{")]
    assert 'http_method="b;a;c"' in line
    assert line.count("http_method") == 1


@pytest.mark.standard_case(26)
@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("5xx", "key_5xx"),
        ("", "key"),
        ("__name__", "_name_"),
        ("le", "exported_le"),
        ("job", "exported_job"),
        ("service", "exported_service"),
    ],
)
async def test_an_attribute_gets_a_name_that_scrapers_take(name: str, label: str) -> None:
    intake = Intake()
    await intake.metrics(gauge("heat", 1.0, [(name, "x")]))
    (line,) = [line for line in intake.page() if line.startswith("heat{")]
    assert f'{label}="x"' in line
    assert 'service="app"' in line


@pytest.mark.standard_case(26)
async def test_metrics_of_another_type_are_renamed_and_no_line_comes_twice() -> None:
    intake = Intake()
    await intake.metrics(
        gauge("app.calls", 1.0),
        gauge("app-calls", 2.0),
        counter("app_calls", 3),
        counter("x.sum", 1),
    )
    lines = intake.page()
    names = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(names) == len(set(names))
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert {"app_calls", "app_calls_counter_total"} <= set(types)
    open_types = [
        line.split()[2] for line in intake.page(open_metrics=True) if line.startswith("# TYPE")
    ]
    assert len(open_types) == len(set(open_types))


@pytest.mark.standard_case(26)
async def test_what_a_resource_says_stands_in_target_info_once() -> None:
    intake = Intake()
    resource = {"service.namespace": "shop", "k8s.pod.name": "app-1"}
    await intake.metrics(gauge("a", 1.0), gauge("b", 1.0), **resource)
    lines = intake.page(open_metrics=True)
    assert "# TYPE target info" in lines
    (line,) = [line for line in lines if line.startswith("target_info{")]
    assert line == 'target_info{k8s_pod_name="app-1",job="shop/app",instance="1"} 1'
    assert sum('job="shop/app"' in line for line in lines) == 3


def histogram(counts: list[int], bounds: list[float]) -> metrics_pb2.Metric:
    metric = metrics_pb2.Metric(name="wait", unit="s")
    metric.histogram.aggregation_temporality = CUMULATIVE
    metric.histogram.data_points.add(
        time_unix_nano=10**18,
        count=sum(counts),
        sum=1.0,
        bucket_counts=counts,
        explicit_bounds=bounds,
    )
    return metric


@pytest.mark.standard_case(27)
@pytest.mark.parametrize(
    ("counts", "bounds"), [([], []), ([3], []), ([1, 2], [0.5]), ([1, 1, 1], [0.5, math.inf])]
)
async def test_every_histogram_ends_with_infinity(counts: list[int], bounds: list[float]) -> None:
    intake = Intake()
    for _ in range(2):  # the second report is compared with the first
        response = await intake.metrics(histogram(counts, bounds))
        assert not response.HasField("partial_success")
    last = [line for line in intake.page() if line.startswith("wait_seconds_bucket")][-1]
    assert 'le="+Inf"' in last
    assert last.endswith(f" {sum(counts)}")


@pytest.mark.standard_case(27)
async def test_a_sender_that_begins_to_send_buckets_is_followed() -> None:
    intake = Intake()
    for counts, bounds in (([], []), ([4], []), ([2, 3], [1.0]), ([], [])):
        assert not (await intake.metrics(histogram(counts, bounds))).HasField("partial_success")


def exponential(scale: int, offset: int, counts: list[int], zeros: int = 0) -> metrics_pb2.Metric:
    metric = metrics_pb2.Metric(name="size", unit="By")
    metric.exponential_histogram.aggregation_temporality = CUMULATIVE
    point = metric.exponential_histogram.data_points.add(
        time_unix_nano=10**18, scale=scale, zero_count=zeros, count=sum(counts) + zeros, sum=9.0
    )
    point.positive.offset = offset
    point.positive.bucket_counts.extend(counts)
    return metric


@pytest.mark.standard_case(27)
async def test_an_exponential_histogram_is_kept_and_shown() -> None:
    intake = Intake()
    await intake.metrics(exponential(0, 0, [1, 2, 3], zeros=4))  # (1,2], (2,4], (4,8]
    buckets = dict(
        line.removesuffix(" ").rsplit(" ", 1)
        for line in intake.page()
        if line.startswith("size_bytes_bucket")
    )
    shown = {key.partition('le="')[2].rstrip('"}'): int(value) for key, value in buckets.items()}
    found = [shown[bound] for bound in ("0", "1", "2", "4", "8", "16", "+Inf")]
    assert found == [4, 4, 5, 7, 10, 10, 10]
    (series,) = intake.store.series.find("size")
    assert 4.0 < series.points[-1].p99 <= 8.0


def point_of(metric: metrics_pb2.Metric) -> Totals:
    return read_exponential(metric.exponential_histogram.data_points[0])


@pytest.mark.standard_case(27)
def test_a_lowered_scale_is_compared_at_the_lower_one() -> None:
    before = point_of(exponential(1, 0, [1, 1, 1, 1]))
    now = point_of(exponential(0, 0, [2, 5]))
    new = increase(before, now)
    assert new is not None
    assert isinstance(new.buckets, Exponential)
    assert (new.buckets.scale, dict(new.buckets.positive), new.count) == (0, {1: 3}, 3)


@pytest.mark.standard_case(27)
def test_a_wide_exponential_histogram_is_bounded_and_its_bounds_rise() -> None:
    totals = point_of(exponential(20, -5000, [1] * 10_000))
    explicit = totals.explicit()
    assert len(explicit.bounds) < 400
    assert sum(explicit.counts) == 10_000
    assert all(low < high for low, high in pairwise(explicit.bounds))


@pytest.mark.standard_case(27)
@pytest.mark.parametrize(("scale", "offset"), [(-10, 5), (-10, -5), (0, 1100), (3, -20_000)])
def test_bounds_beyond_any_number_are_left_out(scale: int, offset: int) -> None:
    explicit = point_of(exponential(scale, offset, [1, 2, 3])).explicit()
    assert sum(explicit.counts) == 6
    assert all(math.isfinite(bound) for bound in explicit.bounds)
    assert math.isfinite(quantile_of(explicit.ranges(), 0.99))


@pytest.mark.standard_case(28)
async def test_a_series_goes_when_its_writer_has_gone() -> None:
    intake = Intake()
    await intake.metrics(counter("calls", 1), instance="old")
    await intake.clock.advance(EXPIRY_S / 2)
    await intake.metrics(counter("calls", 1), instance="new")
    await intake.clock.advance(EXPIRY_S / 2 + 1)
    intake.store.write_own_metrics()
    assert [series.instance for series in intake.store.series.find("calls")] == ["new"]
    assert not any('instance="old"' in line for line in intake.page())


@pytest.mark.standard_case(28)
async def test_a_series_of_increments_stays_while_its_writer_is_heard_of() -> None:
    intake = Intake()
    quiet = counter("calls", 1)
    quiet.sum.aggregation_temporality = DELTA
    await intake.metrics(quiet)
    for _ in range(4):
        await intake.clock.advance(EXPIRY_S / 2)
        await intake.metrics(counter("others", 1))
        intake.store.write_own_metrics()
    assert len(intake.store.series.find("calls")) == 1


@pytest.mark.standard_case(28)
async def test_a_point_without_a_value_ends_its_series() -> None:
    intake = Intake()
    await intake.metrics(counter("calls", 1))
    ended = counter("calls", 1)
    point: Any = ended.sum.data_points[0]
    point.flags, point.time_unix_nano = 1, 2 * 10**18
    await intake.metrics(ended)
    assert intake.store.series.find("calls") == []


@pytest.mark.standard_case(28)
def test_series_are_bounded_in_bytes_and_the_oldest_goes() -> None:
    window = SeriesWindow(max_bytes=20_000)
    for number in range(100):
        list(window.record("app", str(number), counter("calls", 1, host="x" * 100), 1.0))
    assert window.held_bytes <= 20_000
    kept = [series.instance for series in window.find("calls")]
    assert kept == [str(number) for number in range(100 - len(kept), 100)]
