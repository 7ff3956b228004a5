"""The order of service: shares of classes and tenants, deadlines, overload, what is dropped.

Examples and properties of plain values; no time passes.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.batcher.queue.fair_queue import BURST_CREDITS, DEFAULT_WEIGHTS, FairQueue
from penstock.batcher.queue.requests import CRITICAL, HIGH, LOW, NORMAL, WorkItem

PRIORITIES = (LOW, NORMAL, HIGH, CRITICAL)
TOTAL_WEIGHT = sum(DEFAULT_WEIGHTS.values())


def work_item(
    number: int, priority: int = NORMAL, tenant: str = "a", tokens: int = 10, **times_s: float
) -> WorkItem:
    arrived_s, deadline_s = times_s.get("arrived_s", 0.0), times_s.get("deadline_s", 100.0)
    return WorkItem(number, priority, tenant, "m", 1, tokens, arrived_s, deadline_s)


def serve_next(queue: FairQueue) -> WorkItem:
    head = next(queue.in_order(1))
    queue.take(head)
    return head


def serve_all(queue: FairQueue) -> list[WorkItem]:
    served = []
    while len(queue):
        served.append(serve_next(queue))
    return served


def test_the_most_urgent_class_is_first_when_all_arrive_at_once() -> None:
    queue = FairQueue()
    for number, priority in enumerate(PRIORITIES):
        queue.push(work_item(number, priority))
    assert serve_next(queue).priority == CRITICAL


def test_backlogged_classes_share_by_weight() -> None:
    queue = FairQueue(burst_credits={})
    for number in range(4000):
        queue.push(work_item(number, PRIORITIES[number % 4]))
    served = Counter(item.priority for item in serve_all(queue)[:580])
    for priority, weight in DEFAULT_WEIGHTS.items():
        assert served[priority] == pytest.approx(580 * weight / TOTAL_WEIGHT, rel=0.1)


def test_a_tenant_that_sends_much_does_not_crowd_out_another() -> None:
    queue = FairQueue()
    for number in range(1000):
        queue.push(work_item(number, tenant="loud" if number % 10 else "quiet"))
    first = Counter(item.tenant for item in serve_all(queue)[:200])
    assert first["quiet"] == pytest.approx(100, abs=2)


def test_an_idle_tenant_saves_no_credit_up() -> None:
    queue = FairQueue()
    queue.push(work_item(0, tenant="late"))
    for number in range(1, 201):
        queue.push(work_item(number, tenant="busy"))
    for _ in range(101):
        serve_next(queue)
    for number in range(300, 500):
        queue.push(work_item(number, tenant="late"))
    next_tenants = [item.tenant for item in serve_all(queue)[:100]]
    assert next_tenants.count("late") <= 52


@pytest.mark.parametrize("priority", [HIGH, CRITICAL])
def test_a_burst_goes_first_while_its_credit_lasts_and_shares_beyond(priority: int) -> None:
    queue = FairQueue()
    for number in range(400):
        queue.push(work_item(number, NORMAL))
    for _ in range(100):
        serve_next(queue)
    for number in range(400, 1000):
        queue.push(work_item(number, priority))
    order = [item.priority for item in serve_all(queue)]
    burst = order.index(NORMAL)
    weight, normal_weight = DEFAULT_WEIGHTS[priority], DEFAULT_WEIGHTS[NORMAL]
    ahead = 10 / normal_weight  # the class that was served last is ahead by one item
    assert burst == pytest.approx((BURST_CREDITS[priority] + ahead) * weight / 10, abs=1)
    share = weight / (weight + normal_weight)
    assert order[burst : burst + 200].count(priority) == pytest.approx(200 * share, abs=3)


def test_a_class_that_never_empties_its_queue_has_its_burst_once() -> None:
    queue = FairQueue()
    for number in range(400):
        queue.push(work_item(number, NORMAL))
    for number in range(400, 1000):
        queue.push(work_item(number, HIGH))
    after_the_burst = serve_all(queue)[200:500]
    high = sum(item.priority == HIGH for item in after_the_burst)
    assert high == pytest.approx(300 * 8 / 12, abs=3)


def test_within_a_tenant_the_earliest_deadline_is_first() -> None:
    queue = FairQueue()
    for number, deadline_s in enumerate((5.0, 1.0, 3.0)):
        queue.push(work_item(number, deadline_s=deadline_s))
    assert [item.id for item in serve_all(queue)] == [1, 2, 0]


def of_run(number: int, run_id: str, tokens: int = 10) -> WorkItem:
    return work_item(number, tokens=tokens)._replace(run_id=run_id)


def test_a_runs_next_step_does_not_wait_for_all_that_other_runs_have_queued() -> None:
    queue = FairQueue()
    for number in range(8 * 16):
        queue.push(of_run(number, f"sibling-{number % 8}"))
    for _ in range(20):
        serve_next(queue)
    queue.push(of_run(999, "parent"))
    order = [item.id for item in serve_all(queue)]
    assert order.index(999) < 8


def test_runs_share_a_tenants_part_by_tokens() -> None:
    queue = FairQueue()
    for number in range(600):
        short = number % 3
        queue.push(of_run(number, "short" if short else "long", 10 if short else 20))
    tokens: Counter[str] = Counter()
    for item in serve_all(queue)[:200]:
        tokens[item.run_id] += item.tokens
    assert tokens["short"] == pytest.approx(tokens["long"], abs=20)


def test_many_single_calls_do_not_starve_a_run() -> None:
    queue = FairQueue()
    for number in range(10):
        queue.push(of_run(number, "run"))
    served: list[WorkItem] = []
    for number in range(10, 60):
        queue.push(work_item(number))
        served.append(serve_next(queue))
    assert sum(item.run_id == "run" for item in served) >= 6


def test_what_left_unserved_is_not_charged_to_its_run() -> None:
    queue = FairQueue()
    for number in range(50):
        queue.push(of_run(number, "left"))
    for number in range(49):
        queue.remove(number)
    for number in range(50, 60):
        queue.push(of_run(number, "other"))
    queue.push(of_run(99, "left"))
    assert [item.id for item in serve_all(queue)].index(99) < 4


def test_a_runs_next_step_is_not_predicted_to_wait_for_all_that_other_runs_have_queued() -> None:
    queue = FairQueue()
    for number in range(8 * 16):
        queue.push(of_run(number, f"sibling-{number % 8}"))
    for _ in range(20):
        serve_next(queue)
    assert queue.share_ahead(of_run(999, "parent")) < 8 / 108
    assert queue.share_ahead(of_run(999, "sibling-0")) > 0.9
    assert queue.share_ahead(work_item(999)) == queue.share_ahead(of_run(999, "parent"))


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(1, 50)), max_size=40))
def test_the_predicted_wait_is_what_is_served_before(items: list[tuple[str, int]]) -> None:
    """Up to one item of each run, which may share its tag with the newcomer."""
    queue = FairQueue()
    for number, (run_id, tokens) in enumerate(items):
        queue.push(of_run(number, run_id, tokens))
    total = sum(tokens for _, tokens in items)
    newcomer = of_run(999, "b", 1)
    predicted = queue.share_ahead(newcomer) * total
    queue.push(newcomer)
    order = serve_all(queue)
    ahead = sum(item.tokens for item in order[: [item.id for item in order].index(999)])
    assert ahead == pytest.approx(predicted, abs=3 * 50)


def test_a_full_queue_drops_of_the_run_that_has_the_most() -> None:
    queue = FairQueue()
    for number in range(5):
        queue.push(of_run(number, "wide")._replace(arrived_s=float(number)))
    queue.push(of_run(9, "next step")._replace(arrived_s=9.0))
    candidate = queue.drop_candidate()
    assert candidate is not None
    assert candidate.id == 4


def test_the_longest_flow_for_its_weight_loses_its_newest_item() -> None:
    queue = FairQueue()
    for number in range(5):
        queue.push(work_item(number, LOW, "small", arrived_s=number))
    for number in range(5, 15):
        queue.push(work_item(number, CRITICAL, "big", arrived_s=number))
    candidate = queue.drop_candidate()
    assert candidate is not None
    assert candidate.id == 4


def test_a_full_limit_drops_only_from_the_items_that_share_it() -> None:
    queue = FairQueue()
    for number in range(9):
        queue.push(work_item(number, tenant="a"))
    streamed = work_item(9, tenant="a")._replace(is_streamed=True)
    queue.push(streamed)
    candidate = queue.drop_candidate(work_item(10, tenant="b")._replace(is_streamed=True))
    assert candidate == streamed
    assert queue.drop_candidate(work_item(10)._replace(model="other")) is None


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["push", "take", "remove", "expire"]),
        st.integers(1, 4),
        st.integers(0, 3),
        st.integers(1, 50),
    ),
    max_size=80,
)


@given(OPERATIONS)
def test_every_item_leaves_exactly_once(operations: list[tuple[str, int, int, int]]) -> None:
    queue = FairQueue()
    given_back: Counter[int] = Counter()
    pushed = 0
    for now, (operation, priority, tenant, tokens) in enumerate(operations):
        if operation == "push":
            queue.push(work_item(pushed, priority, str(tenant), tokens, deadline_s=now + tokens))
            pushed += 1
        elif operation == "take" and len(queue):
            given_back[serve_next(queue).id] += 1
        elif operation == "remove" and (removed := queue.remove(tokens)):
            given_back[removed.id] += 1
        elif operation == "expire":
            given_back.update(item.id for item in queue.pop_expired(now))
    given_back.update(item.id for item in serve_all(queue))
    assert given_back == Counter(range(pushed))
    assert [queue.rows(priority) for priority in PRIORITIES] == [0, 0, 0, 0]
    assert queue.count("m") == 0


@given(OPERATIONS)
def test_a_tenants_next_item_has_the_earliest_deadline(
    operations: list[tuple[str, int, int, int]],
) -> None:
    """Of equal deadlines the first that came, however pushes, removals and turns interleave."""
    queue = FairQueue()
    waiting: dict[int, WorkItem] = {}
    for number, (operation, priority, tenant, tokens) in enumerate(operations):
        if operation == "push":
            deadline_s = 100.0 + tokens // 5
            item = work_item(number, priority, str(tenant), tokens, deadline_s=deadline_s)
            waiting[number] = item
            queue.push(item)
        elif operation == "remove" and waiting:
            queue.remove(waiting.pop(sorted(waiting)[tokens % len(waiting)]).id)
        elif len(queue):
            head = serve_next(queue)
            flow = (head.priority, head.tenant)
            rivals = [each for each in waiting.values() if (each.priority, each.tenant) == flow]
            assert head == min(rivals, key=lambda each: (each.deadline_s, each.id))
            del waiting[head.id]


ADVERSARY = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 20)), min_size=1, max_size=12
)


@given(st.integers(1, 4), ADVERSARY, st.integers(1, 3))
def test_a_backlogged_flow_waits_a_bounded_number_of_tokens(
    priority: int, pattern: list[tuple[int, int, int]], arrivals_per_turn: int
) -> None:
    """Whatever the others send, and however much more than is served, an item is served before its
    class's share of the work that could have gone ahead of it.
    """
    queue = FairQueue()
    queue.push(work_item(0, priority, "victim"))
    served_before = number = 0
    while served_before < 50_000:
        for _ in range(arrivals_per_turn):
            number += 1
            rival, tenant, tokens = pattern[number % len(pattern)]
            queue.push(work_item(number, rival, f"t{tenant}", tokens))
        head = serve_next(queue)
        if head.id == 0:
            break
        served_before += head.tokens
    bound = TOTAL_WEIGHT / DEFAULT_WEIGHTS[priority] * (30 * 5) + TOTAL_WEIGHT * 210
    assert served_before < bound


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 20)), max_size=40),
    st.integers(0, 20),
    st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 20)),
)
def test_what_is_ahead_of_a_newcomer_is_what_is_served_before_it(
    waiting: list[tuple[int, int, int]],
    served_first: int,
    newcomer: tuple[int, int, int],
) -> None:
    """Within an item of each other class and tenant, of what the classes are due while a tenant's
    item runs; some of what waits is served before it comes.
    """
    queue = FairQueue()
    for number, (priority, tenant, tokens) in enumerate(waiting, 1):
        queue.push(work_item(number, priority, f"t{tenant}", tokens))
    for _ in range(min(served_first, len(queue))):
        serve_next(queue)
    priority, tenant, tokens = newcomer
    item = work_item(0, priority, f"t{tenant}", tokens)
    predicted = queue.share_ahead(item) * queue.tokens.get("m", 0)
    queue.push(item)
    order = [served.id for served in serve_all(queue)]
    sizes = {number: tokens for number, (_, _, tokens) in enumerate(waiting, 1)}
    ahead = sum(sizes[number] for number in order[: order.index(0)])
    of_tenants = 20 * 2
    bound = of_tenants * TOTAL_WEIGHT / DEFAULT_WEIGHTS[priority] + 20 * 3
    assert abs(ahead - predicted) <= bound


def test_in_strict_order_the_more_urgent_and_who_lacks_its_share_are_ahead() -> None:
    queue = FairQueue(strict=True)
    for number, priority in enumerate(PRIORITIES):
        queue.push(work_item(number, priority))
    shares = [queue.share_ahead(work_item(9, priority)) for priority in PRIORITIES]
    assert shares == [1.0, 0.75, 0.5, 0.25]
    serve_next(queue)  # the critical one: the others have had less than their share
    assert queue.share_ahead(work_item(9, HIGH)) > 1 / 3


@pytest.mark.parametrize(("wait_ms", "in_time"), [(0, True), (80, True), (95, False)])
def test_a_predicted_wait_beyond_the_deadline_is_seen(wait_ms: float, in_time: bool) -> None:
    assert work_item(0, deadline_s=0.09).can_begin_in_time(0.0, wait_ms) is in_time


def test_strict_order_serves_the_urgent_first_and_every_class_its_share() -> None:
    queue = FairQueue(strict=True)
    for number in range(4000):
        queue.push(work_item(number, PRIORITIES[number % 4]))
    served = Counter(item.priority for item in serve_all(queue)[:580])
    for priority, weight in DEFAULT_WEIGHTS.items():
        assert served[priority] >= 0.95 * 580 * weight / TOTAL_WEIGHT


def test_strict_order_serves_an_urgent_newcomer_at_once() -> None:
    queue = FairQueue(strict=True)
    for number in range(50):
        queue.push(work_item(number, LOW))
    serve_next(queue)
    queue.push(work_item(99, CRITICAL))
    assert next(queue.in_order(1)).priority == CRITICAL


def test_under_overload_the_newest_is_first_until_the_wait_falls() -> None:
    queue = FairQueue()
    for number in range(5):
        queue.push(work_item(number, arrived_s=float(number), deadline_s=100.0 + number))
    urgent = work_item(9, CRITICAL, arrived_s=10.0)
    for now in (10.0, 10.3, 10.6):
        queue.observe_wait(work_item(8, arrived_s=now - 1.0), now)
        queue.observe_wait(urgent, 10.0)  # another class is none the worse for it
    assert next(queue.in_order(1)).id == 4
    queue.observe_wait(work_item(8, arrived_s=10.69), 10.7)
    assert next(queue.in_order(1)).id == 0


def test_a_postponed_item_is_served_after_all_others_of_its_class() -> None:
    queue = FairQueue()
    for number in range(3):
        queue.push(work_item(number, tenant=str(number)))
    queue.postpone(0)
    queue.push(work_item(9, tenant="new"))
    assert serve_all(queue)[-1].id == 0


def test_looking_ahead_takes_nothing_out() -> None:
    queue, rng = FairQueue(), random.Random(1)
    for number in range(20):
        queue.push(work_item(number, rng.choice(PRIORITIES), str(rng.randrange(3))))
    ahead = list(queue.in_order(5))
    assert (len(ahead), len(queue)) == (5, 20)
    assert list(queue.in_order(5)) == ahead
