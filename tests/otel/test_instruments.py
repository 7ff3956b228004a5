"""Instruments say what OpenTelemetry's own would say of the same measurements."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
    ScopeMetrics,
)
from penstock.otel.instruments import MAX_SETS, Description, Instruments

DESCRIBED = Description("shop.sold", "{tea}", "what was sold")
Point = NumberDataPoint | HistogramDataPoint
MEASURED = st.lists(
    st.tuples(
        st.integers(0, 20_000) | st.floats(0, 1e5),
        st.dictionaries(st.sampled_from("ab"), st.sampled_from(["x", "y", 2, 0.5]), max_size=2),
    ),
    min_size=1,
    max_size=20,
)


def _by_attributes(scopes: Sequence[ScopeMetrics]) -> dict[frozenset[tuple[str, object]], Point]:
    (scope,) = scopes
    (metric,) = scope.metrics
    return {frozenset((point.attributes or {}).items()): point for point in metric.data.data_points}


def _metric(scopes: Sequence[ScopeMetrics]) -> Metric:
    return scopes[0].metrics[0]


@given(MEASURED, st.booleans())
def test_they_say_what_opentelemetrys_own_would(
    measured: list[tuple[float, dict[str, object]]], is_histogram: bool
) -> None:
    reader, instruments = InMemoryMetricReader(), Instruments()
    meter = MeterProvider([reader]).get_meter("sdk")
    for amount, attributes in measured:
        ordered = dict(sorted(attributes.items()))
        if is_histogram:
            meter.create_histogram(*DESCRIBED).record(amount, attributes)
            instruments.histogram(DESCRIBED).record(amount, ordered)
        else:
            meter.create_counter(*DESCRIBED).add(amount, attributes)
            instruments.counter(DESCRIBED).add(amount, ordered)
    data = reader.get_metrics_data()
    assert data is not None
    theirs = data.resource_metrics[0].scope_metrics
    ours = instruments.scopes(1, 2)
    assert _metric(ours).name == _metric(theirs).name
    assert (_metric(ours).unit, _metric(ours).description) == ("{tea}", "what was sold")
    expected, got = _by_attributes(theirs), _by_attributes(ours)
    assert got.keys() == expected.keys()
    for attributes, point in got.items():
        other = expected[attributes]
        if isinstance(point, HistogramDataPoint) and isinstance(other, HistogramDataPoint):
            assert (point.count, point.min, point.max) == (other.count, other.min, other.max)
            assert list(point.bucket_counts) == list(other.bucket_counts)
            assert list(point.explicit_bounds) == list(other.explicit_bounds)
            assert point.sum == pytest.approx(other.sum)
        elif isinstance(point, NumberDataPoint) and isinstance(other, NumberDataPoint):
            assert point.value == pytest.approx(other.value)
            assert (point.start_time_unix_nano, point.time_unix_nano) == (1, 2)


def test_what_was_never_used_is_not_exported() -> None:
    instruments = Instruments()
    instruments.counter(DESCRIBED)
    assert instruments.scopes(1, 2) == []


def test_sets_of_attributes_are_bounded() -> None:
    instruments = Instruments()
    counter = instruments.counter(DESCRIBED)
    for number in range(MAX_SETS + 5):
        counter.add(1, {"number": number})
    counter.add(1, {"number": 0})
    found = _by_attributes(instruments.scopes(1, 2))
    assert len(found) == MAX_SETS + 1
    overflow = found[frozenset({("otel.metric.overflow", True)})]
    assert isinstance(overflow, NumberDataPoint)
    assert overflow.value == 5


def test_a_name_stands_for_one_kind() -> None:
    instruments = Instruments()
    assert instruments.counter(DESCRIBED) is instruments.counter(DESCRIBED)
    with pytest.raises(ValueError, match="another kind"):
        instruments.histogram(DESCRIBED)
