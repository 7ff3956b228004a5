"""From readings of totals to samples of whole intervals."""

from __future__ import annotations

from penstock.scaler.decide.metering import Meter
from penstock.scaler.samples import Sample


def test_readings_become_samples_of_whole_intervals() -> None:
    meter = Meter(60.0)
    made = [
        sample for second in range(0, 200, 5) for sample in meter.read(10.0, 1.0, 1000.0 + second)
    ]
    assert [sample.start_s for sample in made] == [960.0, 1020.0, 1080.0]
    assert all(abs(sample.work - 120.0) < 1e-6 and sample.backlog == 1.0 for sample in made)


def test_a_pause_is_spread_over_what_it_covers_not_taken_for_silence() -> None:
    meter = Meter(60.0)
    meter.read(0.0, 0.0, 1020.0)
    assert meter.read(600.0, 0.0, 1320.0) == [
        Sample(1020.0 + 60.0 * step, 120.0) for step in range(5)
    ]


def test_the_last_seconds_have_a_rate_of_their_own() -> None:
    meter = Meter(60.0)
    for second, work in ((0, 50.0), (5, 50.0)):
        meter.read(work, 0.0, 1000.0 + second)
    assert meter.burst == 0.0, "five seconds are fewer than the window"
    meter.read(150.0, 0.0, 1010.0)
    assert meter.burst == 20.0
    meter.read(0.0, 0.0, 1015.0)
    assert meter.burst == 15.0
    meter.forget()
    assert meter.burst == 0.0 and meter.read(9.0, 0.0, 2000.0) == []
