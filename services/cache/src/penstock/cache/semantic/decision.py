"""The semantic decision of one scope: the vote of the nearest neighbours, gated, made a
probability, compared with a threshold. Plain.

Every called request teaches: was the voted answer the right one? Votes count answer classes; a
class's newest verified entry is served.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from penstock.cache.semantic.classes import AnswerClasses, Floats
from penstock.cache.semantic.gate import contradiction, tokens
from penstock.cache.semantic.threshold import Calibration, ServingThreshold

NEIGHBOURS = 32
TEMPERATURE = 0.1
TOP = 3
NO_RIVAL = 0.02
"""Margin over the best other answer where all neighbours agree: that of the last neighbour, and
this.
"""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A cached entry near the new prompt: its place in the scope, its answer class, its similarity
    and its text.
    """

    place: int
    answer: int
    similarity: float
    text: str


@dataclass(frozen=True, slots=True)
class SemanticDecision:
    """What was decided.

    `serve` is false for an audit too; a call that follows is taught with this.
    """

    serve: bool
    rule: str
    answer: int = -1
    probability: float = 0.0
    similarity: float = 0.0
    audit: bool = False
    features: tuple[float, ...] = ()
    gate: str = ""
    """The contradiction that kept it from being served."""


class SemanticPolicy:
    """The learnt state of one scope.

    `bound`: largest share of wrong answers among hits, a target with an audited bound.
    """

    def __init__(self, width: int, bound: float) -> None:
        self.classes = AnswerClasses(width)
        self.calibration = Calibration()
        self.threshold = ServingThreshold(bound)

    def decide(
        self,
        vector: Floats,
        text: str,
        near: Sequence[Neighbour],
        rng: Random,
        bound: float | None = None,
    ) -> SemanticDecision:
        """Decide for one prompt. `near`: nearest first. A caller's own bound may only tighten."""
        if not near:
            return SemanticDecision(False, "miss: nothing near")
        answer, features = self._features(vector, text, near)
        probability = self.calibration.probability(np.array(features))
        similarity = near[0].similarity
        reason = self._gate(text, near, answer)
        if reason and not self.classes.tolerates(answer, reason):
            return SemanticDecision(
                False,
                f"gate: {reason}",
                answer,
                probability,
                similarity,
                features=features,
                gate=reason,
            )
        if not self.calibration.ready:
            return SemanticDecision(
                False, "miss: learning", answer, probability, similarity, features=features
            )
        self.threshold.see(probability)
        if not self.threshold.would_serve(probability, bound):
            return SemanticDecision(
                False, "miss: not sure enough", answer, probability, similarity, features=features
            )
        if (
            self.threshold.broken
        ):  # every would-be hit is called, and audits the scope until it has recovered
            return SemanticDecision(
                False,
                "miss: audits broke the bound",
                answer,
                probability,
                similarity,
                True,
                features,
            )
        if answer in self.classes.suspects:  # not drawn at random: no part of the audits
            return SemanticDecision(
                False,
                "miss: found wrong lately",
                answer,
                probability,
                similarity,
                features=features,
            )
        if self.threshold.audit(rng):
            return SemanticDecision(False, "audit", answer, probability, similarity, True, features)
        return SemanticDecision(
            True, "semantic", answer, probability, similarity, features=features
        )

    @staticmethod
    def _gate(text: str, near: Sequence[Neighbour], answer: int) -> str:
        """Why the nearest prompt with the voted answer may not speak for this one; empty where it
        may.
        """
        return next(
            (
                contradiction(text, neighbour.text)
                for neighbour in near
                if neighbour.answer == answer
            ),
            "",
        )

    def _features(
        self, vector: Floats, text: str, near: Sequence[Neighbour]
    ) -> tuple[int, tuple[float, ...]]:
        best, votes, found = near[0].similarity, dict[int, float](), dict[int, list[float]]()
        for neighbour in near:
            weight = math.exp((neighbour.similarity - best) / TEMPERATURE)
            votes[neighbour.answer] = votes.get(neighbour.answer, 0.0) + weight
            found.setdefault(neighbour.answer, []).append(neighbour.similarity)
        answer = max(votes, key=lambda label: votes[label])
        own, total = found[answer], sum(votes.values())
        rival = max(
            (values[0] for label, values in found.items() if label != answer),
            default=near[-1].similarity - NO_RIVAL,
        )
        centroid, centroid_margin = self.classes.centroid(vector, answer)
        odds, first_choice = self.classes.discriminant(vector, answer)
        words, words_agree = self.classes.words.margin(tokens(text), answer)
        return answer, (
            best,
            own[0],
            own[0] - rival,
            votes[answer] / total,
            best - own[0],
            math.log1p(float(self.classes.count[answer])),
            sum(own[:TOP]) / len(own[:TOP]),
            self.classes.reliability(answer),
            centroid,
            centroid_margin,
            odds,
            first_choice,
            words,
            words_agree,
            # Where neighbours' answers were never seen twice, answers vary: such prompts are out of
            # any class's scope.
            sum(weight for label, weight in votes.items() if self.classes.count[label] == 1)
            / total,
        )

    def learn(self, vector: Floats, text: str, answer: int, verdict: SemanticDecision) -> None:
        """A call has brought the true answer class of a prompt that was not served."""
        if verdict.features:
            right = verdict.answer == answer
            self.calibration.learn(np.array(verdict.features), right)
            self.classes.record(verdict.answer, right)
            if verdict.gate:
                self.classes.contradicted(verdict.answer, verdict.gate, right)
            if verdict.audit:
                self.threshold.record_audit(verdict.probability, right)
                if not right:
                    self.classes.suspects.add(verdict.answer)
        self.classes.insert(vector, tokens(text), answer)

    def reported_wrong(self, answer: int, probability: float) -> None:
        """A caller says that a served answer was wrong: it counts as an audit that failed."""
        self.classes.record(answer, False)
        self.classes.suspects.add(answer)
        self.threshold.reported(probability)
