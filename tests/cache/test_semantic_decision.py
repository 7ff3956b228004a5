"""The decision of a semantic scope, without any network: the vote, what is learnt, audits."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from penstock.cache.semantic.decision import (
    RECHECKS,
    Neighbour,
    SemanticDecision,
    SemanticPolicy,
)
from penstock.cache.semantic.index import VectorIndex
from penstock.telemetry.detection.quality import QualityMeasure

WIDTH = 32


class Prompts:
    """Random prompts of a few intents: vectors near each other have the same intent most of the
    time.
    """

    def __init__(self, intents: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._centres = self._rng.normal(size=(intents, WIDTH))

    def draw(self, noise: float = 0.6) -> tuple[str, np.ndarray, int]:
        """A prompt, its vector, and its intent."""
        intent = int(self._rng.integers(len(self._centres)))
        vector = self._centres[intent] + noise * self._rng.normal(size=WIDTH)
        words = " ".join(self._rng.choice(["please", "now", "my", "card", "the"], 3))
        text = f"intent{'abcdefghij'[intent]} {words}"
        return text, (vector / np.linalg.norm(vector)).astype(np.float32), intent


class Scope:
    """A scope in use: what is not served is called, and its answer learnt."""

    def __init__(self, bound: float = 0.03) -> None:
        self.policy = SemanticPolicy(WIDTH, bound)
        self.hits: list[bool] = []
        """Whether each answer that was served was right."""
        self.checks: list[bool] = []
        """The same of audits and rechecks: what telemetry is told."""
        self._index = VectorIndex(WIDTH)
        self._rng = Random(1)
        self._learnt: list[tuple[int, str]] = []

    def ask(self, text: str, vector: np.ndarray, answer: int, bound: float | None = None) -> str:
        """Decide for a prompt whose right answer is `answer`; returns the rule."""
        neighbours = [
            Neighbour(at, self._learnt[at][0], similarity, self._learnt[at][1])
            for at, similarity in self._index.search(vector, 32)
        ]
        decision = self.policy.decide(vector, text, neighbours, self._rng, bound)
        if decision.serve:
            self.hits.append(decision.answer_class == answer)
        else:
            if decision.is_audit or decision.is_recheck:
                self.checks.append(decision.answer_class == answer)
            self.policy.learn(vector, text, answer, decision)
            self._index.add(len(self._learnt), vector)
            self._learnt.append((answer, text))
        return decision.rule


def test_nothing_is_served_until_enough_is_learnt_and_then_most_is_and_right() -> None:
    prompts, scope = Prompts(8, 1), Scope(0.03)
    rules = [scope.ask(*prompts.draw()) for _ in range(1_500)]
    assert "semantic" not in rules[:150]
    assert len(scope.hits) > 700
    assert sum(scope.hits) / len(scope.hits) > 0.96
    assert rules.count("audit") > 3


def test_a_caller_may_tighten_the_bound_and_never_loosen_it() -> None:
    prompts, scope = Prompts(8, 1), Scope(0.03)
    for _ in range(1_000):
        scope.ask(*prompts.draw())
    threshold = scope.policy.threshold
    probability = threshold.value + (1 - threshold.value) / 2
    assert threshold.would_serve(probability)
    assert not threshold.would_serve(probability, (1 - probability) / 2)
    assert not threshold.would_serve(threshold.value - 0.01, 0.9)


def test_a_prompt_that_contradicts_its_nearest_neighbour_is_called() -> None:
    scope = Scope()
    vector = np.ones(WIDTH, np.float32) / np.sqrt(WIDTH)
    assert scope.ask("transfer 50 now", vector, 0) == "miss: nothing near"
    assert scope.ask("transfer 500 now", vector, 1) == "gate: number differs"


@pytest.mark.parametrize("is_reported", [True, False])
def test_a_class_found_wrong_is_called_until_a_call_shows_it_to_be_right(is_reported: bool) -> None:
    """Found wrong by a caller or by an audit. Other classes are served meanwhile, and calls of this
    one are no audits, since they were not drawn at random.
    """
    prompts, scope = Prompts(8, 1), Scope()
    for _ in range(1_500):
        scope.ask(*prompts.draw())
    if is_reported:
        scope.policy.record_complaint(0, 0.99)
    else:
        wrong = SemanticDecision(False, "audit", 0, 0.99, 0.9, True, (0.0,) * 15)
        scope.policy.learn(prompts.draw()[1], "somewhere else", 1, wrong)
    audits_before = scope.policy.threshold.audit_count
    rules: dict[int, list[str]] = {intent: [] for intent in range(8)}
    while len(rules[0]) < 12 or "miss: found wrong lately" not in rules[0]:
        text, vector, intent = prompts.draw(0.2)
        rules[intent].append(scope.ask(text, vector, intent))
        assert sum(map(len, rules.values())) < 2_000
    of_class = [rule for rule in rules[0] if rule in ("semantic", "miss: found wrong lately")]
    assert of_class[0] == "miss: found wrong lately"
    assert "semantic" in of_class[1:]
    assert any("semantic" in rules[intent] for intent in range(1, 8))
    drawn = sum(rule == "audit" for of_intent in rules.values() for rule in of_intent)
    assert scope.policy.threshold.audit_count - audits_before == drawn


def test_the_first_calls_of_a_class_found_wrong_are_rechecks() -> None:
    """While it stays wrong; it is cleared by a call that is right."""
    scope, vector = Scope(), np.ones(WIDTH, np.float32) / np.sqrt(WIDTH)
    policy = scope.policy
    policy.classes.grow(2)
    evidence = SemanticDecision(False, "miss: found wrong lately", 0, 0.99, 0.9, False, (0.0,) * 15)
    policy.learn(vector, "where", 1, replace(evidence, rule="audit", is_audit=True))
    for wrong_again in range(4):
        assert policy.classes.suspects == {0: min(wrong_again, RECHECKS)}
        is_recheck = wrong_again < RECHECKS
        policy.learn(vector, "where", 1, replace(evidence, is_recheck=is_recheck))
    policy.learn(vector, "here", 0, evidence)
    assert not policy.classes.suspects
    policy.learn(vector, "where", 1, replace(evidence, is_recheck=True))
    assert not policy.classes.suspects


def test_few_changed_answers_are_enough_to_be_noticed_from_outside() -> None:
    """A class whose answers have changed fails one audit, and is not drawn again: three of eight
    make few failed audits, and enough with the rechecks.
    """
    prompts, scope, agreement = Prompts(8, 5), Scope(), QualityMeasure(50, is_binary=True)
    for _ in range(6_000):
        scope.ask(*prompts.draw(0.2))
    for is_right in scope.checks:
        agreement.add(float(is_right))
    assert agreement.observations >= 50
    assert not agreement.has_drifted
    scope.checks.clear()
    for _ in range(1_500):
        text, vector, intent = prompts.draw(0.2)
        scope.ask(text, vector, intent + 8 if intent < 3 else intent)
    assert 3 < scope.checks.count(False) <= 3 * (1 + RECHECKS) + 3
    drifted = False
    for is_right in scope.checks:
        agreement.add(float(is_right))
        drifted = drifted or agreement.has_drifted
    assert drifted


def test_changed_answers_are_noticed_by_audits_and_learnt() -> None:
    """Half of the intents get another answer while the scope serves."""
    prompts, scope = Prompts(8, 3), Scope()
    for _ in range(1_500):
        scope.ask(*prompts.draw())
    before = len(scope.hits)
    for _ in range(3_000):
        text, vector, intent = prompts.draw()
        scope.ask(text, vector, intent + 8 if intent < 4 else intent)
    after = scope.hits[before:]
    assert after.count(False) < 400
    assert sum(after[-300:]) / 300 > 0.9


def test_a_scope_whose_bound_is_broken_serves_nothing_and_recovers_by_its_calls() -> None:
    prompts, scope = Prompts(8, 2), Scope()
    for _ in range(800):
        scope.ask(*prompts.draw())
    for _ in range(12):
        scope.policy.threshold.record_audit(0.99, False)
    before = len(scope.hits)
    rules = [scope.ask(*prompts.draw()) for _ in range(60)]
    assert len(scope.hits) == before
    assert "miss: audits broke the bound" in rules
    for _ in range(2_000):
        scope.ask(*prompts.draw())
    assert len(scope.hits) > before
