"""The semantic decision without any network: the gate's table, the vote, what is learnt, and the
fall-back on failed audits.
"""

from __future__ import annotations

import time
from random import Random

import numpy as np
import pytest
from penstock.cache.semantic.decision import Neighbour, SemanticDecision, SemanticPolicy
from penstock.cache.semantic.gate import contradiction
from penstock.cache.semantic.index import VectorIndex
from penstock.cache.semantic.threshold import (
    LAPSE_RATE,
    OFF,
    PRIOR_ERROR_RATIO,
    TIGHTENED_INSPECTIONS,
    Calibration,
    ServingThreshold,
)

WIDTH = 32


@pytest.mark.parametrize(
    ("new", "cached", "reason"),
    [
        ("transfer 50 dollars", "transfer 500 dollars", "number differs"),
        ("wake me at 7pm", "wake me at 8 pm", "number differs"),
        ("what is order A-1023", "what is order A-1024", "identifier differs"),
        ('delete the file "a.txt"', 'delete the file "b.txt"', "quoted text differs"),
        ("weather on monday", "weather on tuesday", "time differs"),
        ("how hot in celsius", "how hot in fahrenheit", "unit differs"),
        ("change from usd to eur", "change from eur to usd", "direction is reversed"),
        ("exchange usd to eur", "exchange eur to usd", "direction is reversed"),
        ("fly from oslo to rome", "fly from oslo to bern", "direction differs"),
        ("enable the alarm", "disable the alarm", "opposite word"),
        ("can i use my card abroad", "can i not use my card abroad", "negation differs"),
        ("was i charged", "was i never charged", "negation differs"),
        ("is Anna in the office", "is Boris in the office", "name differs"),
        ("how do i activate my card", "please tell me how to activate my card", ""),
        ("transfer 50 dollars", "make a transfer", ""),
        ("how much is left on my card", "the right card for me", ""),
        ("my card is not working at all in this shop", "card payment declined", ""),
        ("same text 5", "same text 5", ""),
    ],
)
def test_the_gate_fires_on_contradictions_only(new: str, cached: str, reason: str) -> None:
    assert contradiction(new, cached) == reason
    assert bool(contradiction(cached, new)) == bool(reason)


@pytest.mark.parametrize("piece", ["a-", "aaaa", "1,", "/a", "a@", "'a ", "from a "])
def test_reading_a_hostile_prompt_takes_no_time_to_speak_of(piece: str) -> None:
    """Ten times the text takes about ten times as long; quadratic patterns would take a hundred
    times.
    """

    def taken(size: int) -> float:
        text = (piece * size)[:size]
        began = time.perf_counter()
        contradiction(text, "b" + text)
        return time.perf_counter() - began

    taken(100)
    assert min(taken(20_000 + number) for number in range(3)) < 60 * max(
        min(taken(2_000 + n) for n in range(3)), 1e-3
    )


class World:
    """Prompts of a few intents as noisy vectors, so that near means the same intent most of the
    time.
    """

    def __init__(self, intents: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = self.rng.normal(size=(intents, WIDTH))
        self.count = 0

    def prompt(self, noise: float = 0.6) -> tuple[str, np.ndarray, int]:
        intent = int(self.rng.integers(len(self.centres)))
        vector = self.centres[intent] + noise * self.rng.normal(size=WIDTH)
        self.count += 1
        words = f"intent{'abcdefghij'[intent]} " + " ".join(
            self.rng.choice(["please", "now", "my", "card", "the"], 3)
        )
        return words, (vector / np.linalg.norm(vector)).astype(np.float32), intent


class Stream:
    """A scope at work: what is not served is called and taught."""

    def __init__(self, bound: float) -> None:
        self.scope, self.index, self.rng = (
            SemanticPolicy(WIDTH, bound),
            VectorIndex(WIDTH),
            Random(1),
        )
        self.kept: list[tuple[int, str]] = []
        self.hits: list[bool] = []

    def ask(self, text: str, vector: np.ndarray, truth: int, bound: float | None = None) -> str:
        near = [Neighbour(at, *self._of(at, value)) for at, value in self.index.search(vector, 32)]
        verdict = self.scope.decide(vector, text, near, self.rng, bound)
        if verdict.serve:
            self.hits.append(verdict.answer == truth)
        else:
            self.scope.learn(vector, text, truth, verdict)
            self.index.add(len(self.kept), vector)
            self.kept.append((truth, text))
        return verdict.rule

    def _of(self, at: int, value: float) -> tuple[int, float, str]:
        return self.kept[at][0], value, self.kept[at][1]


def test_nothing_is_served_before_enough_is_known_and_then_most_is_and_right() -> None:
    world, stream = World(8, 1), Stream(0.03)
    rules = [stream.ask(*world.prompt()) for _ in range(1_500)]
    assert "semantic" not in rules[:150]
    assert len(stream.hits) > 700
    assert sum(stream.hits) / len(stream.hits) > 0.96
    assert rules.count("audit") > 3


def test_a_caller_may_tighten_the_bound_and_never_loosen_it() -> None:
    world, stream = World(8, 1), Stream(0.03)
    for _ in range(1_000):
        stream.ask(*world.prompt())
    threshold = stream.scope.threshold
    sure = threshold.theta + (1 - threshold.theta) / 2
    assert threshold.would_serve(sure)
    assert not threshold.would_serve(sure, (1 - sure) / 2)
    assert not threshold.would_serve(threshold.theta - 0.01, 0.9)


def test_prompts_that_contradict_their_neighbours_are_called() -> None:
    stream = Stream(0.03)
    vector = np.ones(WIDTH, np.float32) / np.sqrt(WIDTH)
    assert stream.ask("transfer 50 now", vector, 0) == "miss: nothing near"
    assert stream.ask("transfer 500 now", vector, 1) == "gate: number differs"


def test_audits_that_fail_turn_a_scope_off_and_good_ones_turn_it_on_again() -> None:
    threshold = ServingThreshold(0.03)
    assert threshold.theta == OFF
    for _ in range(30):
        threshold.record_audit(0.99, True)
    assert not threshold.broken
    for _ in range(5):
        threshold.record_audit(0.99, False)
    assert threshold.broken
    assert threshold.error_ratio > 1.7 * PRIOR_ERROR_RATIO
    for _ in range(100):
        threshold.record_audit(0.99, True)
    assert not threshold.broken
    share, low = threshold.precision()
    assert share == pytest.approx(130 / 135)
    assert 0.9 < low < share


def test_audits_correct_the_prior_both_soon_and_far_enough() -> None:
    """Good audits never loosen; errors as many as expected, or twice as many, are believed the
    more, the more audits say so.
    """
    threshold = ServingThreshold(0.03)
    assert threshold.error_ratio == PRIOR_ERROR_RATIO
    for _ in range(300):
        threshold.record_audit(0.97, True)
    assert threshold.error_ratio == PRIOR_ERROR_RATIO
    for times in (1, 2):
        threshold, said = ServingThreshold(0.03), [PRIOR_ERROR_RATIO]
        for number in range(1, 1_201):
            threshold.record_audit(0.9, number % 10 >= times)
            if number in (100, 300, 1_200):
                said.append(threshold.error_ratio)
        assert said == sorted(said)
        assert said[-1] > 0.9 * times


def test_where_errors_are_more_than_expected_less_is_served() -> None:
    """The same would-be hits, of which audits say that as many, or four times as many, are wrong as
    the curve expects.
    """

    def served(wrong_every: int) -> float:
        threshold, chances = ServingThreshold(0.03), np.linspace(0.5, 0.997, 1_000)
        for number in range(200):
            threshold.record_audit(0.96, number % wrong_every != 0)
        for chance in chances:
            threshold.see(float(chance))
        return float((chances >= threshold.theta).mean())

    as_expected, fourfold = served(25), served(6)
    assert 0.0 < fourfold < 0.6 * as_expected


def test_one_failed_audit_moves_what_is_sure_by_little_and_many_by_much() -> None:
    def sure(failed: int) -> float:
        calibration, rng = Calibration(), np.random.default_rng(5)
        for number in range(1_200):
            side = rng.normal(size=3)
            calibration.learn(side, bool(side[0] + 0.3 * rng.normal() > 0))
            if number >= 1_200 - failed:
                calibration.learn(np.array([2.5, 0.0, 0.0]), False)
        for _ in range(50):
            side = rng.normal(size=3)
            calibration.learn(side, bool(side[0] + 0.3 * rng.normal() > 0))
        return calibration.probability(np.array([2.5, 0.0, 0.0]))

    assert 0.98 < sure(0) <= 1.0 - LAPSE_RATE
    assert sure(1) > 0.99
    assert sure(200) < 0.7


def test_a_failed_audit_has_more_audits_follow_for_a_while() -> None:
    threshold, rng = ServingThreshold(0.03), Random(3)

    def audits() -> int:
        return sum(threshold.audit(rng) for _ in range(TIGHTENED_INSPECTIONS))

    usual = sum(audits() for _ in range(20)) / 20
    threshold.record_audit(0.99, True)
    assert audits() <= 3 * usual + 3
    closer = 0
    for _ in range(20):
        threshold.record_audit(0.99, False)
        closer += audits()
    assert 6 * usual < closer / 20 < 14 * usual
    assert sum(audits() for _ in range(20)) / 20 < 2 * usual


@pytest.mark.parametrize("reported", [True, False])
def test_a_class_found_wrong_is_called_until_a_call_clears_it(reported: bool) -> None:
    """By an audit or by a caller; other classes are served meanwhile, and its calls are no audits,
    since nobody drew them.
    """
    world, stream = World(8, 1), Stream(0.03)
    for _ in range(1_500):
        stream.ask(*world.prompt())
    scope = stream.scope
    if reported:
        scope.reported_wrong(0, 0.99)
    else:
        wrong = SemanticDecision(False, "audit", 0, 0.99, 0.9, True, (0.0,) * 15)
        scope.learn(world.prompt()[1], "somewhere else", 1, wrong)
    audits, rules = scope.threshold.audits, dict[int, list[str]]()
    while len(rules.get(0, [])) < 12 or not {"miss: found wrong lately"} & set(rules[0]):
        text, vector, intent = world.prompt(0.2)
        rules.setdefault(intent, []).append(stream.ask(text, vector, intent))
        assert sum(map(len, rules.values())) < 2_000
    seen = [rule for rule in rules[0] if rule in ("semantic", "miss: found wrong lately")]
    assert seen[0] == "miss: found wrong lately"
    assert "semantic" in seen[1:]
    assert "semantic" in [rule for intent, of in rules.items() if intent for rule in of]
    assert scope.threshold.audits - audits == sum(
        rule == "audit" for of in rules.values() for rule in of
    )


def test_answers_that_change_are_noticed() -> None:
    """Half of the intents get another answer while the scope serves: soon it is right again, by
    audits and what follows from them.
    """
    world, stream = World(8, 3), Stream(0.03)
    for _ in range(1_500):
        stream.ask(*world.prompt())
    before = len(stream.hits)
    for _ in range(3_000):
        text, vector, intent = world.prompt()
        stream.ask(text, vector, intent + 8 if intent < 4 else intent)
    after = stream.hits[before:]
    assert after.count(False) < 400
    assert sum(after[-300:]) / 300 > 0.9


def test_a_broken_scope_serves_nothing_and_recovers_by_its_own_calls() -> None:
    world, stream = World(8, 2), Stream(0.03)
    for _ in range(800):
        stream.ask(*world.prompt())
    for _ in range(12):
        stream.scope.threshold.record_audit(0.99, False)
    before = len(stream.hits)
    rules = [stream.ask(*world.prompt()) for _ in range(60)]
    assert len(stream.hits) == before
    assert "miss: audits broke the bound" in rules
    for _ in range(2_000):
        stream.ask(*world.prompt())
    assert len(stream.hits) > before


def test_the_index_forgets_and_finds_the_nearest_first() -> None:
    index, rng = VectorIndex(WIDTH), np.random.default_rng(3)
    vectors = rng.normal(size=(300, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for place, vector in enumerate(vectors):
        index.add(place, vector)
    for place in range(0, 300, 2):
        index.remove(place)
    found = index.search(vectors[10], 5)
    right = sorted(
        (at for at in range(1, 300, 2)), key=lambda at: -float(vectors[at] @ vectors[10])
    )[:5]
    assert [place for place, _ in found] == right
    assert len(index) == 150


def test_few_labels_and_strange_features_make_less_sure() -> None:
    """The same evidence, ten times over, is surer; and what lies far from every label is unsurer
    than the straight line says.
    """

    def policy(times: int) -> Calibration:
        calibration, rng = Calibration(), np.random.default_rng(7)
        for _ in range(times * 150):
            side = rng.normal(size=3)
            calibration.learn(side, bool(side[0] + 0.5 * rng.normal() > 0))
        return calibration

    few, many = policy(1), policy(8)
    likely = np.array([1.5, 0.0, 0.0])
    assert few.ready
    assert few.probability(likely) < many.probability(likely)
    assert few.probability(likely + np.array([0.0, 60.0, 0.0])) < 0.9 * few.probability(likely)
    assert few.probability(-likely) < 0.1


def test_an_index_changes_its_kind_as_it_grows_and_forgets_in_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flat, then a graph, then inverted lists: the nearest are found, the removed never, and
    tombstones leave when there are many.
    """
    for name, value in (
        ("FLAT_UP_TO", 200),
        ("GRAPH_UP_TO", 2_000),
        ("LISTS", 16),
        ("LISTS_SEARCHED", 12),
    ):
        monkeypatch.setattr(f"penstock.cache.semantic.index.{name}", value)
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(2_600, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = VectorIndex(WIDTH)
    for place, vector in enumerate(vectors):
        index.add(place, vector)
        if place + 1 in (150, 1_500, 2_600):
            gone = set(range(place - 100, place, 2))
            for one in gone:
                index.remove(one)
            alive = np.array([at for at in range(place + 1) if at in index])
            found, wanted = 0, 0
            for query in vectors[:40]:
                truth = set(alive[np.argsort(-(vectors[alive] @ query))[:8]].tolist())
                places = [at for at, _ in index.search(query, 8)]
                assert not gone & set(places)
                found, wanted = found + len(truth & set(places)), wanted + 8
            assert found / wanted > 0.9
