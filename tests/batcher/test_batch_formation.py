"""What joins a batch, what it costs, whether to wait for more, and how large it may be."""

from __future__ import annotations

import math
import random

import pytest
from penstock.batcher.queue.batch_formation import BatchLimits, form_batch, padding_waste
from penstock.batcher.queue.instance_profile import (
    CostModel,
    FixedLimit,
    InstanceProfile,
    RowLimits,
)
from penstock.batcher.queue.next_batch import ArrivalGaps, batch_delay_s
from penstock.batcher.queue.requests import CRITICAL, NORMAL, WorkItem
from penstock.batcher.settings import KnobsSection

WIDE = BatchLimits(max_rows=32, max_tokens=16_384)


def work_item(number: int, tokens: int = 10, priority: int = NORMAL) -> WorkItem:
    return WorkItem(number, priority, "a", "m", 1, tokens, 0.0, 100.0)


def test_where_padding_costs_only_similar_lengths_join() -> None:
    cpu = CostModel(base_ms=1.0, per_token_ms=0.19)
    lengths = (20, 200, 21, 19, 90)
    candidates = [work_item(number, tokens) for number, tokens in enumerate(lengths)]
    batch = form_batch(candidates, cpu, WIDE)
    assert {item.id for item in batch} == {0, 2, 3}
    assert padding_waste(batch) < 0.05


def test_where_a_batch_costs_the_same_nearly_all_join() -> None:
    gpu = CostModel(base_ms=8.0, per_token_ms=0.004)
    candidates = [work_item(number, 10 + number) for number in range(30)]
    assert len(form_batch(candidates, gpu, WIDE)) == 30


def test_a_batch_keeps_within_its_rows_and_padded_tokens() -> None:
    free_rows = CostModel(base_ms=8.0, per_token_ms=0.0)
    candidates = [work_item(number) for number in range(50)]
    assert len(form_batch(candidates, free_rows, BatchLimits(8, 16_384))) == 8
    assert len(form_batch(candidates, free_rows, BatchLimits(32, 100))) == 10


@pytest.mark.parametrize("change", [{"model": "other"}, {"is_streamed": True}])
def test_another_model_and_a_stream_do_not_join(change: dict[str, object]) -> None:
    stranger = work_item(99)._replace(**change)  # type: ignore[arg-type]
    assert form_batch([work_item(0), stranger], CostModel(8.0, 0.0), WIDE) == [work_item(0)]


def test_an_urgent_batch_has_its_own_time_limit() -> None:
    cost = CostModel(base_ms=1.0, per_token_ms=0.1)
    limits = BatchLimits(32, 16_384, max_ms=20.0, max_urgent_ms=6.0)
    for priority, rows in ((NORMAL, 19), (CRITICAL, 5)):
        candidates = [work_item(number, 10, priority) for number in range(50)]
        assert len(form_batch(candidates, cost, limits)) == rows


def test_the_cost_of_a_batch_is_learned() -> None:
    model, rng = CostModel(), random.Random(3)
    for _ in range(300):
        rows, longest = rng.randint(1, 32), rng.randint(4, 128)
        model.learn(rows, longest, 2.0 + 0.05 * rows * longest + rng.gauss(0, 0.1))
    assert model.base_ms == pytest.approx(2.0, abs=0.3)
    assert model.per_token_ms == pytest.approx(0.05, rel=0.05)


def test_rows_are_halved_by_an_overrun_and_grow_by_one_after_that() -> None:
    limits = RowLimits()
    assert limits.rows_for("m", 8) == 8
    limits.record_batch("m", rows=8, time_ratio=4.0, max_rows=8)
    assert limits.rows_for("m", 8) == 4
    limits.record_batch("m", rows=4, time_ratio=1.0, max_rows=8)
    assert limits.rows_for("m", 8) == 5
    assert limits.rows_for("other", 8) == 8


def test_the_profile_learns_cost_and_rows_from_a_batch() -> None:
    profile = InstanceProfile(FixedLimit(1))
    items = [work_item(number) for number in range(8)]
    profile.record_batch(items, 40.0, running=1, knobs=KnobsSection(max_batch_ms=10.0), now=5.0)
    assert profile.cost("m").samples == 1
    assert profile.row_limits.rows_for("m", 8) == 4


def test_the_mean_gap_follows_the_arrivals() -> None:
    gaps = ArrivalGaps()
    assert math.isinf(gaps.mean_s)
    for number in range(50):
        gaps.record(number * 0.002)
    assert gaps.mean_s == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("gap_s", "base_ms", "delay_s"),
    [(math.inf, 8.0, 0.0), (1.0, 8.0, 0.0), (0.0001, 8.0, 0.002), (0.0001, 0.0, 0.0)],
)
def test_a_batch_is_kept_open_only_where_waiting_pays(
    gap_s: float, base_ms: float, delay_s: float
) -> None:
    """Arrivals must be likely, and a shared fixed cost worth waiting for."""
    gaps = ArrivalGaps(mean_s=gap_s, last_s=0.0)
    assert batch_delay_s([work_item(0)], CostModel(base_ms, 0.0), gaps, 0.002, 0.0) == delay_s


def test_a_batch_is_not_kept_open_beyond_its_tightest_deadline() -> None:
    gaps = ArrivalGaps(mean_s=0.0001, last_s=0.0)
    tight = work_item(1)._replace(deadline_s=0.001)
    batch = [work_item(0), tight]
    assert batch_delay_s(batch, CostModel(8.0, 0.0), gaps, 0.002, 0.0) == 0.001
