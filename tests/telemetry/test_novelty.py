"""The detector of single streams: silent when nothing is new, loud when something is, bounded, the
same for any unit.
"""

from __future__ import annotations

import math
import random
import sys

from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.novelty import WARM_UP_SAMPLES, DecayingHistogram, NoveltyStream
from penstock.telemetry.window.series_key import SeriesKey


def alerts(values: list[float]) -> list[int]:
    stream = NoveltyStream()
    return [row for row, value in enumerate(values) if stream.alert(stream.score(value))]


def noisy(rng: random.Random, count: int) -> list[float]:
    return [100.0 + rng.gauss(0.0, 2.0) for _ in range(count)]


def test_a_stream_of_one_value_never_alerts() -> None:
    assert alerts([7.0] * 3000) == []


def test_noise_alone_alerts_about_once_in_a_thousand() -> None:
    assert sum(len(alerts(noisy(random.Random(seed), 4000))) for seed in range(5)) <= 25


def test_a_jump_after_calm_is_found_at_once_and_once() -> None:
    values = noisy(random.Random(1), 1000) + [160.0] * 50
    assert [row for row in alerts(values) if row >= 900] == [1000]


def test_a_slow_shift_is_found_by_the_means() -> None:
    rng = random.Random(2)
    values = noisy(rng, 2000) + [104.0 + rng.gauss(0.0, 0.5) for _ in range(100)]
    assert any(2000 <= row < 2060 for row in alerts(values))


def test_the_first_hundred_say_nothing_whatever_they_are() -> None:
    assert alerts([float(10**n) for n in range(WARM_UP_SAMPLES)]) == []


def test_the_unit_does_not_matter() -> None:
    values = [*noisy(random.Random(3), 1500), 130.0, *noisy(random.Random(4), 500)]
    assert alerts([value * 1024.0 for value in values]) == alerts(values) != []


def test_counts_survive_the_rescaling_and_the_widening_of_the_range() -> None:
    table = DecayingHistogram()
    for row in range(250_000):
        table.learn(float(row % 8), 1.0)
    before = table.score(3.0, 1.0)
    table.learn(70.0, 67.0)
    assert math.isfinite(before) and before < 3.0
    assert table.score(3.0, 1.0) < 3.0, "what was usual still is after one value far outside"


def test_a_stream_holds_less_than_eight_kilobytes() -> None:
    stream, held = NoveltyStream(), 0
    for value in noisy(random.Random(5), 500):
        stream.score(value)
    for part in (stream._fast, stream._slow):
        held += sys.getsizeof(part) + sys.getsizeof(part._cells)
    assert held + sys.getsizeof(stream._values) + sys.getsizeof(stream._means) < 8_000


def test_a_finding_names_the_stream_its_value_and_what_was_usual() -> None:
    detector, key = (
        MetricDetector(),
        SeriesKey("router", "rpc.server.call.duration", (("rpc.method", "R/Embed"),)),
    )
    for row in range(400):
        assert not detector.observe_sample(key, 15.0 * row, 0.01 + row % 7 / 10_000)
    (finding,) = detector.observe_sample(key, 6000.0, 0.5)
    assert (
        finding.service == "router"
        and finding.detector == "metric"
        and "R/Embed" in finding.subject
    )
    assert (
        finding.contributions[0].value == 0.5 and 0.01 < finding.contributions[0].expected < 0.011
    )
    assert finding.severity > 5.0


def test_what_is_no_number_is_left_out_and_streams_are_bounded() -> None:
    detector = MetricDetector(most=2)
    for name in ("a", "b", "c"):
        assert detector.observe_sample(SeriesKey("s", name), 0.0, math.nan) == ()
        assert detector.observe_sample(SeriesKey("s", name), 0.0, 1.0) == ()
    assert detector.state()["streams"] == 2
