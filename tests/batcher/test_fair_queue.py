"""Order, shares and batches as tables and properties; virtual time only."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.batcher.batch_formation import BatchLimits, CostModel, form_batch, padding_waste
from penstock.batcher.fair_queue import (
    BURST_CREDITS,
    CRITICAL,
    DEFAULT_WEIGHTS,
    HIGH,
    LOW,
    NORMAL,
    FairQueue,
    WorkItem,
    refusal,
)


def entry(
    number: int, priority: int = NORMAL, tenant: str = "a", tokens: int = 10, **more: float
) -> WorkItem:
    return WorkItem(
        number,
        priority,
        tenant,
        "m",
        1,
        tokens,
        more.get("arrived_s", 0.0),
        more.get("deadline_s", 100.0),
    )


def drain(scheduler: FairQueue) -> list[WorkItem]:
    out = []
    while len(scheduler):
        head = next(scheduler.in_order(1))
        scheduler.take(head)
        out.append(head)
    return out


def test_the_urgent_go_first_when_all_arrive_at_once() -> None:
    scheduler = FairQueue()
    for number, priority in enumerate((LOW, NORMAL, HIGH, CRITICAL)):
        scheduler.push(entry(number, priority))
    assert drain(scheduler).pop(0).priority == CRITICAL


def test_backlogged_classes_share_by_weight() -> None:
    scheduler = FairQueue(credits={})
    for number in range(4000):
        scheduler.push(entry(number, (LOW, NORMAL, HIGH, CRITICAL)[number % 4]))
    served = Counter(item.priority for item in drain(scheduler)[:580])
    total = sum(DEFAULT_WEIGHTS.values())
    for priority, weight in DEFAULT_WEIGHTS.items():
        assert served[priority] == pytest.approx(580 * weight / total, rel=0.1)


def test_an_aggressor_cannot_crowd_out_a_tenant() -> None:
    scheduler = FairQueue()
    for number in range(1000):
        scheduler.push(entry(number, tenant="loud" if number % 10 else "quiet"))
    first = Counter(item.tenant for item in drain(scheduler)[:200])
    assert first["quiet"] == pytest.approx(100, abs=2)


def test_idling_banks_no_credit() -> None:
    scheduler = FairQueue()
    scheduler.push(entry(0, tenant="late"))
    for number in range(1, 201):
        scheduler.push(entry(number, tenant="busy"))
    for _ in range(101):
        scheduler.take(next(scheduler.in_order(1)))
    for number in range(300, 500):
        scheduler.push(entry(number, tenant="late"))
    after = [scheduler_next.tenant for scheduler_next in drain(scheduler)[:100]]
    assert after.count("late") <= 52


@pytest.mark.parametrize("priority", [HIGH, CRITICAL])
def test_a_burst_goes_first_while_its_credit_lasts_and_shares_beyond(priority: int) -> None:
    scheduler = FairQueue()
    for number in range(400):
        scheduler.push(entry(number, NORMAL))
    for _ in range(100):
        scheduler.take(next(scheduler.in_order(1)))
    for number in range(400, 1000):
        scheduler.push(entry(number, priority))
    order = [item.priority for item in drain(scheduler)]
    burst, ahead = (
        order.index(NORMAL),
        10 / DEFAULT_WEIGHTS[NORMAL],
    )  # the class that was served last is ahead by one entry
    assert burst == pytest.approx(
        (BURST_CREDITS[priority] + ahead) * DEFAULT_WEIGHTS[priority] / 10, abs=1
    )
    share = DEFAULT_WEIGHTS[priority] / (DEFAULT_WEIGHTS[priority] + DEFAULT_WEIGHTS[NORMAL])
    assert order[burst : burst + 200].count(priority) == pytest.approx(200 * share, abs=3)


def test_credit_is_not_renewed_without_idling() -> None:
    """A class that never empties its queue has its burst once."""
    scheduler = FairQueue()
    for number in range(400):
        scheduler.push(entry(number, NORMAL))
    for number in range(400, 1000):
        scheduler.push(entry(number, HIGH))
    late = drain(scheduler)[200:500]
    assert sum(item.priority == HIGH for item in late) == pytest.approx(300 * 8 / 12, abs=3)


def test_earliest_deadline_first_within_a_tenant() -> None:
    scheduler = FairQueue()
    for number, deadline_s in enumerate((5.0, 1.0, 3.0)):
        scheduler.push(entry(number, deadline_s=deadline_s))
    assert [item.id for item in drain(scheduler)] == [1, 2, 0]


def test_the_longest_flow_for_its_weight_loses_its_newest() -> None:
    scheduler = FairQueue()
    for number in range(5):
        scheduler.push(entry(number, LOW, "small", arrived_s=number))
    for number in range(5, 15):
        scheduler.push(entry(number, CRITICAL, "big", arrived_s=number))
    victim = scheduler.drop_candidate()
    assert victim is not None
    assert victim.id == 4


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["push", "serve", "remove", "expire"]),
        st.integers(1, 4),
        st.integers(0, 3),
        st.integers(1, 50),
    ),
    max_size=80,
)


@given(OPERATIONS)
def test_every_entry_leaves_exactly_once(operations: list[tuple[str, int, int, int]]) -> None:
    scheduler = FairQueue()
    given_back: Counter[int] = Counter()
    pushed = 0
    for now, (what, priority, tenant, tokens) in enumerate(operations):
        if what == "push":
            scheduler.push(entry(pushed, priority, str(tenant), tokens, deadline_s=now + tokens))
            pushed += 1
        elif what == "serve" and len(scheduler):
            head = next(scheduler.in_order(1))
            scheduler.take(head)
            given_back[head.id] += 1
        elif what == "remove" and (gone := scheduler.remove(tokens)):
            given_back[gone.id] += 1
        elif what == "expire":
            given_back.update(item.id for item in scheduler.pop_expired(now))
    given_back.update(item.id for item in drain(scheduler))
    assert given_back == Counter(range(pushed))
    assert [scheduler.rows(priority) for priority in DEFAULT_WEIGHTS] == [0, 0, 0, 0]
    assert scheduler.tokens() == 0


@given(OPERATIONS)
def test_within_a_tenant_the_earliest_deadline_is_always_next(
    operations: list[tuple[str, int, int, int]],
) -> None:
    """And of equal deadlines the first that came, however pushes, removals and turns interleave."""
    scheduler = FairQueue()
    waiting: dict[int, WorkItem] = {}
    for number, (what, priority, tenant, tokens) in enumerate(operations):
        if what == "push":
            waiting[number] = entry(
                number, priority, str(tenant), tokens, deadline_s=100.0 + tokens // 5
            )
            scheduler.push(waiting[number])
        elif what == "remove" and waiting:
            scheduler.remove(waiting.pop(sorted(waiting)[tokens % len(waiting)]).id)
        elif len(scheduler):
            head = next(scheduler.in_order(1))
            rivals = [
                item
                for item in waiting.values()
                if (item.priority, item.tenant) == (head.priority, head.tenant)
            ]
            assert head == min(rivals, key=lambda item: (item.deadline_s, item.id))
            scheduler.take(waiting.pop(head.id))


ADVERSARY = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 20)), min_size=1, max_size=12
)


@given(st.integers(1, 4), ADVERSARY, st.integers(1, 3))
def test_a_backlogged_flow_waits_a_bounded_number_of_tokens(
    priority: int, pattern: list[tuple[int, int, int]], a_turn: int
) -> None:
    """Whatever the others send, and however much more than is served, an entry is served before its
    class's share of the work that could have gone ahead of it.
    """
    scheduler = FairQueue()
    scheduler.push(entry(0, priority, "victim"))
    served_before = number = 0
    while served_before < 50_000:
        for _ in range(a_turn):
            number += 1
            rival, tenant, tokens = pattern[number % len(pattern)]
            scheduler.push(entry(number, rival, f"t{tenant}", tokens))
        head = next(scheduler.in_order(1))
        scheduler.take(head)
        if head.id == 0:
            break
        served_before += head.tokens
    bound = (sum(DEFAULT_WEIGHTS.values()) / DEFAULT_WEIGHTS[priority]) * (30 * 5) + sum(
        DEFAULT_WEIGHTS.values()
    ) * 210
    assert served_before < bound


def test_where_padding_costs_only_like_lengths_join() -> None:
    cpu = CostModel(1.0, 0.19)
    candidates = [
        entry(0, tokens=20),
        entry(1, tokens=200),
        entry(2, tokens=21),
        entry(3, tokens=19),
        entry(4, tokens=90),
    ]
    batch = form_batch(candidates, cpu, BatchLimits(32, 16_384))
    assert {item.id for item in batch} == {0, 2, 3}
    assert padding_waste(batch) < 0.05


def test_where_a_batch_costs_the_same_nearly_all_join() -> None:
    gpu = CostModel(8.0, 0.004)
    candidates = [entry(number, tokens=10 + number) for number in range(30)]
    assert len(form_batch(candidates, gpu, BatchLimits(32, 16_384))) == 30


def test_a_batch_keeps_its_bounds_and_its_model() -> None:
    cost = CostModel(8.0, 0.0)
    candidates = [entry(number, tokens=10) for number in range(50)]
    assert len(form_batch(candidates, cost, BatchLimits(8, 16_384))) == 8
    assert len(form_batch(candidates, cost, BatchLimits(32, 100))) == 10
    other = WorkItem(99, NORMAL, "a", "other", 1, 10, 0.0, 100.0)
    assert other not in form_batch([entry(0), other], cost, BatchLimits(8, 1000))


def test_the_cost_of_a_batch_is_learnt() -> None:
    model, rng = CostModel(), random.Random(3)
    for _ in range(300):
        rows, longest = rng.randint(1, 32), rng.randint(4, 128)
        model.learn(rows, longest, 2.0 + 0.05 * rows * longest + rng.gauss(0, 0.1))
    assert model.base_ms == pytest.approx(2.0, abs=0.3)
    assert model.per_token_ms == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(("waiting_ms", "fits"), [(0, True), (80, True), (95, False)])
def test_what_cannot_meet_its_deadline_is_refused(waiting_ms: float, fits: bool) -> None:
    assert (refusal(entry(0, deadline_s=0.09), 0.0, waiting_ms) is None) is fits


def test_strict_order_serves_the_urgent_first_and_keeps_every_floor() -> None:
    scheduler = FairQueue(strict=True)
    for number in range(4000):
        scheduler.push(entry(number, (LOW, NORMAL, HIGH, CRITICAL)[number % 4]))
    served = Counter(item.priority for item in drain(scheduler)[:580])
    for priority, weight in DEFAULT_WEIGHTS.items():
        assert served[priority] >= 0.95 * 580 * weight / sum(DEFAULT_WEIGHTS.values())
    few = FairQueue(strict=True)
    for number in range(50):
        few.push(entry(number, LOW))
    few.take(next(few.in_order(1)))
    few.push(entry(99, CRITICAL))
    assert next(few.in_order(1)).priority == CRITICAL


def test_overloaded_the_newest_goes_first_until_the_delay_falls() -> None:
    scheduler = FairQueue()
    for number in range(5):
        scheduler.push(entry(number, arrived_s=float(number), deadline_s=100.0 + number))
    for moment in (10.0, 10.3, 10.6):
        scheduler.codel.observe(1.0, moment)
    assert scheduler.codel.overloaded
    assert next(scheduler.in_order(1)).id == 4
    scheduler.codel.observe(0.01, 10.7)
    assert next(scheduler.in_order(1)).id == 0


def test_a_postponed_entry_is_served_after_all_others_of_its_class() -> None:
    scheduler = FairQueue()
    for number in range(3):
        scheduler.push(entry(number, tenant=str(number)))
    scheduler.postpone(0)
    scheduler.push(entry(9, tenant="new"))
    assert [item.id for item in drain(scheduler)][-1] == 0
