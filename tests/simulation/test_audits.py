"""Simulated audits of a semantic cache: how many there are, and what they find."""

from __future__ import annotations

from random import Random

from penstock.cache.semantic.decision import RECHECKS
from penstock.cache.semantic.threshold import AUDIT_SHARE
from penstock.simulation.audits import ANSWERS, Audits


def test_a_small_share_of_hits_is_audited_while_answers_are_right() -> None:
    audits, rng = Audits(), Random(1)
    found = [audits.of_hit(0.0, rng) for _ in range(100_000)]
    checked = [is_right for is_right in found if is_right is not None]
    assert AUDIT_SHARE * 1e5 < len(checked) < 1.5 * AUDIT_SHARE * 1e5
    assert 0.95 < sum(checked) / len(checked) < 0.99


def test_each_changed_answer_fails_one_audit_and_its_rechecks() -> None:
    audits, rng = Audits(), Random(2)
    changed = 0.4 * ANSWERS
    found = [audits.of_hit(0.4, rng) for _ in range(20_000)]
    wrong = found.count(False)
    by_chance = 0.05 * sum(is_right is not None for is_right in found)
    assert changed * (1 + RECHECKS) <= wrong < changed * (1 + RECHECKS) + by_chance
    assert found[-2_000:].count(False) < 10


def test_answers_that_change_again_are_wrong_again() -> None:
    audits, rng = Audits(), Random(3)
    for wrong_share in (0.4, 0.0, 0.4):
        found = [audits.of_hit(wrong_share, rng) for _ in range(10_000)]
    assert found.count(False) > 0.3 * ANSWERS
