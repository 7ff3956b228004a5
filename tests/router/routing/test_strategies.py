"""The strategies: what each prefers, and that all of them share equally among equals."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from penstock.router.routing.choice import Chosen, choose
from penstock.router.routing.fleet import Member
from penstock.router.routing.strategies import STRATEGIES, PeakEwma, WeightedByUtilization
from penstock.router.routing.strategy import (
    Answer,
    LeastAddedDelay,
    Pick,
    RequestFeatures,
    ScoredPick,
    Strategy,
    sized_delay,
)
from penstock.router.settings import RouterSettings

from .fleets import ANYTHING, SERVICE_S, fleet, member


def scored(strategy: str, *candidates: Member, request: RequestFeatures = ANYTHING) -> ScoredPick:
    """What a new strategy of this name picks of these."""
    return STRATEGIES[strategy]().choose(candidates, fleet(*candidates), request, Random(1))


def picks(strategy: Strategy, count: int, *candidates: Member) -> Counter[str]:
    """How often each candidate is picked."""
    known, rng = fleet(*candidates), Random(1)
    found = [strategy.choose(candidates, known, ANYTHING, rng).position for _ in range(count)]
    return Counter(candidates[position].id for position in found)


def test_every_strategy_of_the_setting_exists_under_its_own_name() -> None:
    assert {name: kind.name for name, kind in STRATEGIES.items()} == {
        name: name for name in STRATEGIES
    }
    for name in STRATEGIES:
        assert RouterSettings(strategy=name).strategy == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "slots", "added"), [(0, 1, 1.0), (1, 1, 3.0), (3, 1, 7.0), (2, 4, 1.0), (4, 4, 2.25)]
)
def test_least_added_delay_is_the_delay_added_to_everybody(
    n: int, slots: int, added: float
) -> None:
    loaded = member("a", own=n, concurrency=slots, speed=2.0)
    expected = pytest.approx((added + 0.001 * n) / 2.0)
    assert scored("least_added_delay", loaded).scores == [expected]
    assert sized_delay(loaded, 1.0) == expected


def test_least_added_delay_counts_a_part_of_a_slot() -> None:
    half_taken = member("a", others=0.5, speed=1.0)
    [score] = LeastAddedDelay().choose([half_taken], fleet(), ANYTHING, Random(1)).scores
    assert score == pytest.approx(1.5 * 1.5 - 0.5 + 0.0005)


def test_round_robin_goes_in_turn_from_a_start_taken_at_random() -> None:
    candidates = [member(name) for name in "abc"]
    starts = set()
    for seed in range(20):
        strategy, rng = STRATEGIES["round_robin"](), Random(seed)
        found = [
            strategy.choose(candidates, fleet(*candidates), ANYTHING, rng).position
            for _ in range(6)
        ]
        assert found == [(found[0] + turn) % 3 for turn in range(6)]
        starts.add(found[0])
    assert starts == {0, 1, 2}


def test_least_requests_joins_the_shortest_queue_of_its_slots() -> None:
    found = scored("least_requests", member("a", own=2), member("b", own=4, concurrency=4))
    assert (found.scores, found.position) == ([2.0, 1.0], 1)


def test_power_of_two_never_takes_the_worst_of_all() -> None:
    loaded = [member(str(own), own=own) for own in range(4)]
    found = picks(STRATEGIES["power_of_two"](), 200, *loaded)
    assert found["0"] > found["1"] > found["2"] > found["3"] == 0
    assert scored("power_of_two", member("a")).why is Pick.ONLY_CANDIDATE


def test_peak_ewma_rises_at_once_and_falls_by_degrees() -> None:
    slow, quick = member("slow"), member("quick")
    known, strategy = fleet(slow, quick), PeakEwma()
    for name, took_s in ((quick, 0.1), (slow, 0.1), (slow, 0.9)):
        strategy.answered(name, known, Answer(1.0, took_s, None))
    scores = strategy.choose([slow, quick], known, ANYTHING, Random(1)).scores
    assert scores == pytest.approx([0.9, 0.1])
    decay_s = strategy.decay_services * SERVICE_S
    strategy.answered(slow, known, Answer(1.0 + decay_s, 0.1, None))
    [fallen, _] = strategy.choose([slow, quick], known, ANYTHING, Random(1)).scores
    assert 0.1 < fallen < 0.5
    strategy.answered(slow, known, Answer(1.0 + 9 * decay_s, 0.1, None))
    [forgotten, _] = strategy.choose([slow, quick], known, ANYTHING, Random(1)).scores
    assert forgotten == pytest.approx(0.1, rel=0.01)


def test_peak_ewma_takes_an_unknown_instance_for_a_usual_one() -> None:
    known, strategy = fleet(member("a"), member("b"), member("new")), PeakEwma()
    nothing_known = strategy.choose(known.members, known, ANYTHING, Random(1)).scores
    assert nothing_known == [SERVICE_S] * 3
    for one, took_s in zip(known.members[:2], (0.2, 0.4), strict=True):
        strategy.answered(one, known, Answer(1.0, took_s, None))
    known.members[2].own = 1
    scores = strategy.choose(known.members, known, ANYTHING, Random(1)).scores
    assert scores == pytest.approx([0.2, 0.4, 2 * 0.4])


def test_weighted_by_utilization_gives_turns_by_rate_over_utilisation() -> None:
    idle = member("idle", utilization=0.2, speed=10.0)
    busy = member("busy", utilization=0.8, speed=10.0)
    found = picks(WeightedByUtilization(), 500, idle, busy)
    assert found["idle"] == pytest.approx(found["busy"], rel=0.05), "the rate grows with use"
    slow = member("slow", utilization=0.8, speed=2.5)
    found = picks(WeightedByUtilization(), 500, busy, slow)
    assert found["busy"] / found["slow"] == pytest.approx(4.0, rel=0.05)


def test_weighted_sum_prefers_speed_and_room() -> None:
    quick, slow = member("quick", speed=10.0), member("slow", speed=2.0)
    full = member("full", speed=10.0, own=9)
    heavy = RequestFeatures(tokens=10)
    assert scored("weighted_sum", quick, slow, full, request=heavy).position == 0
    [first, _] = scored("weighted_sum", quick, slow, request=heavy).scores
    assert first == pytest.approx(-(0.4 + 0.3 + 0.2 + 0.1 * 0.5))


def test_hot_cold_takes_the_quickest_of_those_with_short_queues() -> None:
    slow, quick = member("slow", speed=2.0), member("quick", speed=8.0)
    hot = [member(f"hot{number}", own=1, speed=100.0) for number in range(5)]
    found = scored("hot_cold", slow, quick, *hot)
    assert (found.position, found.why) == (1, Pick.COLDEST)
    assert found.scores[:2] == [1 / 2.0, 1 / 8.0]


def test_hot_cold_joins_the_shortest_queue_where_all_are_hot() -> None:
    found = scored("hot_cold", member("a", own=3, speed=9.0), member("b", own=3, speed=1.0))
    assert found.why is Pick.ALL_HOT
    found_often = picks(
        STRATEGIES["hot_cold"](), 50, member("a", own=1, speed=9.0), member("b", own=1, speed=1.0)
    )
    assert found_often.keys() == {"a", "b"}, "ties are broken by lot, not by speed"


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_equal_instances_share_equally(name: str) -> None:
    known = fleet(*(member(str(number)) for number in range(4)))
    strategy, rng, served = STRATEGIES[name](), Random(3), Counter[str]()
    for number in range(400):
        now = number * 0.01
        found = choose(known, strategy, ANYTHING, now, rng)
        assert isinstance(found, Chosen)
        served[found.member.id] += 1
        known.begin(found.member, now)
        known.succeed(found.member, now + 0.005, 0.005)
        strategy.answered(found.member, known, Answer(now + 0.005, 0.005, None))
    assert min(served.values()) > (20 if name == "peak_ewma" else 60)
