"""The novelty of single streams and the detector over them: silent when nothing is new, loud when
something is, bounded, the same for any unit.
"""

from __future__ import annotations

import math
import random
import sys

from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.novelty import (
    WARM_UP_SAMPLES,
    DecayingHistogram,
    NoveltyStream,
)
from penstock.telemetry.window.series import SeriesKey


def alerts(values: list[float]) -> list[int]:
    """The indices of the values that a new stream alerts on."""
    stream = NoveltyStream()
    return [row for row, value in enumerate(values) if stream.should_alert(stream.score(value))]


def noise(rng: random.Random, count: int) -> list[float]:
    return [100.0 + rng.gauss(0.0, 2.0) for _ in range(count)]


def test_a_stream_of_one_value_never_alerts() -> None:
    assert alerts([7.0] * 3000) == []


def test_noise_alone_alerts_about_once_in_a_thousand() -> None:
    assert sum(len(alerts(noise(random.Random(seed), 4000))) for seed in range(5)) <= 25


def test_a_jump_after_calm_alerts_at_once_and_once() -> None:
    values = noise(random.Random(1), 1000) + [160.0] * 50
    assert [row for row in alerts(values) if row >= 900] == [1000]


def test_a_slow_shift_is_found_by_the_means() -> None:
    rng = random.Random(2)
    values = noise(rng, 2000) + [104.0 + rng.gauss(0.0, 0.5) for _ in range(100)]
    assert any(2000 <= row < 2060 for row in alerts(values))


def test_no_value_of_the_warm_up_alerts() -> None:
    assert alerts([float(10**n) for n in range(WARM_UP_SAMPLES)]) == []


def test_the_unit_does_not_matter() -> None:
    values = [*noise(random.Random(3), 1500), 130.0, *noise(random.Random(4), 500)]
    found = alerts(values)
    assert found
    assert alerts([value * 1024.0 for value in values]) == found


def test_counts_survive_rescaling_and_the_widening_of_the_range() -> None:
    histogram = DecayingHistogram()
    for row in range(250_000):
        histogram.learn(float(row % 8), 1.0)
    before = histogram.score(3.0, 1.0)
    histogram.learn(70.0, 67.0)
    assert math.isfinite(before)
    assert before < 3.0
    assert histogram.score(3.0, 1.0) < 3.0, "usual before one value far outside, and after it"


def test_a_stream_takes_less_than_eight_kilobytes() -> None:
    stream = NoveltyStream()
    for value in noise(random.Random(5), 500):
        stream.score(value)
    assert 4_000 < sys.getsizeof(stream) < 8_000


def test_a_finding_names_the_stream_its_value_and_the_expected_one() -> None:
    detector = MetricDetector()
    key = SeriesKey("router", "rpc.server.call.duration", (("rpc.method", "R/Embed"),))
    for row in range(400):
        assert not detector.observe_sample(key, 15.0 * row, 0.01 + row % 7 / 10_000)
    (finding,) = detector.observe_sample(key, 6000.0, 0.5)
    assert (finding.service, finding.detector) == ("router", "metric")
    assert "R/Embed" in finding.subject
    (contribution,) = finding.contributions
    assert contribution.value == 0.5
    assert 0.01 < contribution.expected < 0.011
    assert finding.severity > 5.0


def test_a_value_that_is_no_number_is_ignored() -> None:
    detector = MetricDetector()
    assert detector.observe_sample(SeriesKey("s", "a"), 0.0, math.nan) == ()
    assert detector.metrics()["streams"] == 0


def test_the_number_of_streams_is_bounded() -> None:
    detector = MetricDetector(max_streams=2)
    for name in ("a", "b", "c"):
        detector.observe_sample(SeriesKey("s", name), 0.0, 1.0)
    assert detector.metrics()["streams"] == 2
