"""What a reused answer saves in time: the usual way of a computed one like it, less its own way."""

from __future__ import annotations

import pytest
from penstock.router.calls.miss_times import WEIGHT, MissRoute, MissTimes

SHORT = MissRoute.of("m", "generate", 40)


def test_nothing_is_said_while_no_computed_answer_is_known() -> None:
    assert MissTimes().saved_ms(SHORT, 3.0) == 0.0


def test_a_reused_answer_saves_the_usual_whole_way_less_its_own() -> None:
    times = MissTimes()
    times.add(SHORT, 100.0)
    times.add(SHORT, 140.0)
    assert times.saved_ms(SHORT, 20.0) == pytest.approx(100.0)


def test_a_reused_answer_that_took_longer_saves_less_than_nothing() -> None:
    times = MissTimes()
    times.add(SHORT, 10.0)
    assert times.saved_ms(SHORT, 30.0) == pytest.approx(-20.0)


def test_calls_of_another_size_model_or_kind_are_not_compared() -> None:
    times = MissTimes()
    times.add(MissRoute.of("m", "generate", 4000), 9000.0)
    times.add(MissRoute.of("other", "generate", 40), 500.0)
    times.add(MissRoute.of("m", "embed", 40), 5.0)
    assert times.saved_ms(SHORT, 2.0) == 0.0


def test_the_usual_way_follows_a_change() -> None:
    times = MissTimes()
    for _ in range(100):
        times.add(SHORT, 100.0)
    times.add(SHORT, 200.0)
    assert times.saved_ms(SHORT, 0.0) == pytest.approx(100.0 + WEIGHT * 100.0)
