"""The decision of one semantic scope: may the answer of a similar prompt be served?

1. The nearest cached prompts vote for the answer class of theirs, weighted by similarity.
2. A gate refuses the winner where its nearest prompt contradicts the new one (`gate`).
3. What is known of the vote becomes features, and these a probability of being right (`threshold`).
4. The winner is served from a threshold on, except for audits and for classes found wrong lately.

Every request that is not served is called, and its true answer teaches the scope whether the vote
was right. Votes are for answer classes; the entry served is the newest verified one of the class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from penstock.cache.semantic.classes import AnswerClasses, Floats
from penstock.cache.semantic.declared_answers import NO_MARGIN
from penstock.cache.semantic.gate import contradiction, tokens
from penstock.cache.semantic.threshold import Calibration, Row, ServingThreshold, aimed_share
from penstock.service.purity import pure

NEIGHBOURS = 32
"""Nearest prompts that vote."""
TEMPERATURE = 0.1
"""A neighbour's vote weighs exp((similarity - best similarity) / this)."""
TOP_SIMILARITIES = 3
RECHECKS = 2
"""So many calls of a class that was found wrong count as if they were audits, to whoever watches
the agreement of audits: a class whose answers have changed fails one audit and is not drawn again.
"""
"""Similarities of the winning class whose mean is a feature."""
MARGIN_WITHOUT_RIVAL = 0.02
"""Where all neighbours agree, the best rival is taken to be this much less similar than the last of
them.
"""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A cached prompt near the new one.

    `vector_id` names it within its scope; `similarity` is the cosine of the two prompts' vectors.
    """

    vector_id: int
    answer_class: int
    similarity: float
    text: str


@dataclass(frozen=True, slots=True)
class SemanticDecision:
    """What was decided, and on what evidence; the evidence is learnt from if the request is called.

    `serve` is False for an audit: the request is called although it would have been served.
    `is_recheck`: so is this one, since an audit or a caller found the class wrong lately.
    `rule` is what the receipt says. `answer_class` is the class voted for, -1 for none.
    `contradiction` is the kind of contradiction for which the gate refused; empty for none.
    `answer_margin` is that of the class voted for, by the words of the answers that the request
    allows.
    """

    serve: bool
    rule: str
    answer_class: int = -1
    probability: float = 0.0
    similarity: float = 0.0
    is_audit: bool = False
    features: tuple[float, ...] = ()
    contradiction: str = ""
    is_recheck: bool = False
    answer_margin: float = NO_MARGIN


@pure
class SemanticPolicy:
    """What one scope has learnt, and how it decides.

    `bound` is the largest share of errors among hits: a target with an audited bound.
    """

    def __init__(self, width: int, bound: float) -> None:
        self.classes = AnswerClasses(width)
        self.calibration = Calibration()
        self.threshold = ServingThreshold(bound)

    def decide(
        self,
        vector: Floats,
        text: str,
        neighbours: Sequence[Neighbour],
        rng: Random,
        bound: float | None = None,
        margin_of: Callable[[int], float] | None = None,
    ) -> SemanticDecision:
        """Decide for one prompt.

        Args:
            vector: the prompt's embedding, of length 1.
            neighbours: the nearest first.
            rng: draws audits.
            bound: the caller's own error bound; it may only tighten the scope's.
            margin_of: how much nearer the prompt is to the words of a class's answer than to those
                of every other answer that the request allows (`declared_answers`); None where it
                lists none.
        """
        if not neighbours:
            return SemanticDecision(serve=False, rule="miss: nothing near")
        evidence = self._evidence(vector, text, neighbours, margin_of)
        kind = _contradiction_with_class(text, neighbours, evidence.answer_class)
        if kind and not self.classes.tolerates(evidence.answer_class, kind):
            return replace(evidence, rule=f"gate: {kind}", contradiction=kind)
        if not self.calibration.is_ready:
            return replace(evidence, rule="miss: learning")
        # Elsewhere so low an aim would cost half of the first hits (decision 0158).
        aim = 1.0 if margin_of is None else aimed_share(self.calibration.label_count)
        self.threshold.observe(evidence.probability, aim)
        if not self.threshold.would_serve(evidence.probability, bound):
            return replace(evidence, rule="miss: not sure enough")
        if self.threshold.is_broken:
            # Every would-be hit is called, and audits the scope until it has recovered.
            return replace(evidence, rule="miss: audits broke the bound", is_audit=True)
        if (wrong_again := self.classes.suspects.get(evidence.answer_class)) is not None:
            # Not drawn at random, so the call is no audit.
            is_recheck = wrong_again < RECHECKS
            return replace(evidence, rule="miss: found wrong lately", is_recheck=is_recheck)
        if self.threshold.draw_audit(rng):
            return replace(evidence, rule="audit", is_audit=True)
        return replace(evidence, serve=True, rule="semantic")

    def learn(
        self, vector: Floats, text: str, answer_class: int, decision: SemanticDecision
    ) -> None:
        """Learn the true answer class of a prompt that was not served, from its call."""
        if decision.features:
            self._learn_vote(decision, is_right=decision.answer_class == answer_class)
        self.classes.insert(vector, tokens(text), answer_class)

    def record_complaint(self, answer_class: int, probability: float) -> None:
        """Note that a caller reported a served answer of this class as wrong."""
        self.classes.record_vote(answer_class, is_right=False)
        self.classes.suspect(answer_class)
        self.threshold.record_complaint(probability)

    def _learn_vote(self, decision: SemanticDecision, *, is_right: bool) -> None:
        self.calibration.learn(_row(decision.features, decision.answer_margin), is_right)
        self.classes.record_vote(decision.answer_class, is_right)
        if decision.contradiction:
            self.classes.record_contradiction(
                decision.answer_class, decision.contradiction, is_right
            )
        if decision.is_audit:
            self.threshold.record_audit(decision.probability, is_right)
            if not is_right:
                self.classes.suspect(decision.answer_class)
        elif decision.is_recheck and not is_right:
            self.classes.find_wrong_again(decision.answer_class)

    def _evidence(
        self,
        vector: Floats,
        text: str,
        neighbours: Sequence[Neighbour],
        margin_of: Callable[[int], float] | None,
    ) -> SemanticDecision:
        """The winner of the vote and what is known of it, not yet decided on."""
        answer_class, features = self._vote(vector, text, neighbours)
        margin = NO_MARGIN if margin_of is None else margin_of(answer_class)
        return SemanticDecision(
            serve=False,
            rule="",
            answer_class=answer_class,
            probability=self.calibration.probability(_row(features, margin)),
            similarity=neighbours[0].similarity,
            features=features,
            answer_margin=margin,
        )

    def _vote(
        self, vector: Floats, text: str, neighbours: Sequence[Neighbour]
    ) -> tuple[int, tuple[float, ...]]:
        """The answer class with most votes, and the features of the vote.

        Features stand in the learning log: their number and order must not change.
        """
        best = neighbours[0].similarity
        votes: dict[int, float] = {}
        similarities: dict[int, list[float]] = {}
        for neighbour in neighbours:
            weight = math.exp((neighbour.similarity - best) / TEMPERATURE)
            votes[neighbour.answer_class] = votes.get(neighbour.answer_class, 0.0) + weight
            similarities.setdefault(neighbour.answer_class, []).append(neighbour.similarity)
        winner = max(votes, key=lambda answer_class: votes[answer_class])
        own = similarities[winner]
        rival = max(
            (values[0] for answer_class, values in similarities.items() if answer_class != winner),
            default=neighbours[-1].similarity - MARGIN_WITHOUT_RIVAL,
        )
        total = sum(votes.values())
        # Answers that were never seen twice vary: such prompts belong to no class.
        unique = sum(weight for label, weight in votes.items() if self.classes.counts[label] == 1)
        return winner, (
            best,
            own[0],
            own[0] - rival,
            votes[winner] / total,
            best - own[0],
            math.log1p(float(self.classes.counts[winner])),
            sum(own[:TOP_SIMILARITIES]) / len(own[:TOP_SIMILARITIES]),
            self.classes.reliability(winner),
            *self.classes.centroid(vector, winner),
            *self.classes.discriminant(vector, winner),
            *self.classes.words.margin(tokens(text), winner),
            unique / total,
        )


def _row(features: tuple[float, ...], answer_margin: float) -> Row:
    return np.array([*features, answer_margin])


def _contradiction_with_class(text: str, neighbours: Sequence[Neighbour], answer_class: int) -> str:
    """The kind of contradiction between a prompt and the nearest one of a class; empty for none."""
    for neighbour in neighbours:
        if neighbour.answer_class == answer_class:
            return contradiction(text, neighbour.text)
    return ""
