"""The comparison with whole instances and the decision as it serves, `decide()` itself.

An instance does a twentieth of the mean work of a step. Our side decides every 15 seconds by the
last sample and the forecasts of the level that ships, at the shipped rates of change; Kubernetes'
HPA wants whole instances after each sample. What is asked for serves `lead` steps later, what is
removed is gone at once, and both are paid for from the moment they are asked for. The HPA's target
utilisation is swept, and its over-provision read at our own share of short steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock.bench.scaling.reactive_rules import TARGETS, Array, Sums, envelope_at, hpa
from penstock.bench.scaling.series import Series
from penstock.scaler.decide.decision import (
    DecisionState,
    PoolState,
    ScalingPolicy,
    decide,
    instances_for,
)

Positions = NDArray[np.integer[Any]]
INSTANCES = 20
"""That do the mean work of a step."""
DECIDED_EVERY_S = 15.0
POLICY = ScalingPolicy(max_instances=10**6)


@dataclass(frozen=True)
class Asked:
    """Instances asked for after each sample, until the next one: the fewest, and the mean."""

    fewest: Array
    mean: Array

    def sums(self, work: Array, steps: Positions, lead: int, instance: float) -> Sums:
        """Over these steps, for each value of a parameter.

        Args:
            work: of all steps.
            steps: that are looked at; the first is not before `lead`.
            lead: steps until an instance serves.
            instance: work of an instance in a step.
        """
        serving = np.min([self.fewest[steps - ahead] for ahead in range(1, lead + 1)], axis=0)
        capacity = instance * serving
        done = np.minimum(work[steps, None], capacity)
        return Sums(
            (capacity < work[steps, None]).sum(0).astype(float),
            (instance * self.mean[steps - 1] - done).sum(0),
            len(steps),
            float(work[steps].sum()),
        )


@dataclass(frozen=True)
class WholeBlock:
    """One block of consecutive steps: the scaler's sums, and the HPA's by its target."""

    ours: Sums
    hpa: Sums


def blocks_of_cell(
    series: Series, lead: int, forecasts: Array, rows: Sequence[Positions]
) -> list[WholeBlock]:
    """A cell's blocks.

    Args:
        forecasts: after each sample, the largest quantile over the lead and the hold.
        rows: positions of each block's steps among the evaluated ones.
    """
    instance = float(series.work[series.start :].mean()) / INSTANCES
    ours, theirs = decided(series, lead, forecasts, instance), _hpa(series, instance)
    steps = np.arange(series.start, len(series.work))
    return [
        WholeBlock(
            ours.sums(series.work, steps[each], lead, instance),
            theirs.sums(series.work, steps[each], lead, instance),
        )
        for each in rows
    ]


def decided(series: Series, lead: int, forecasts: Array, instance: float) -> Asked:
    """What the scaler asks for; rates of work are those of a step."""
    decisions = max(1, round(series.step_s / DECIDED_EVERY_S))
    state, current = DecisionState(), instances_for(float(series.work[0]), instance)
    fewest: list[int] = []
    mean: list[float] = []
    for number, work in enumerate(series.work):
        wanted: list[int] = []
        for decision in range(decisions):
            now_s = (number + decision / decisions) * series.step_s
            pool = PoolState(
                current=current,
                ready=min([current, *fewest[len(fewest) - lead + 1 :]]) if lead > 1 else current,
                capacity=instance,
                demand=float(work),
                backlog=0.0,
                forecast=float(forecasts[number]),
                measured_at_s=now_s,
            )
            target = decide(pool, POLICY, state, now_s)
            state, current = target.state, target.wanted
            wanted.append(current)
        fewest.append(min(wanted))
        mean.append(sum(wanted) / decisions)
    return Asked(np.array(fewest, dtype=float)[:, None], np.array(mean)[:, None])


def _hpa(series: Series, instance: float) -> Asked:
    """What the HPA asks for at each target."""
    asked = np.stack(
        [
            hpa(series.work / instance, series.step_s, float(target), whole=True)
            for target in TARGETS
        ],
        axis=1,
    )
    return Asked(asked, asked)


def cut(blocks: Sequence[WholeBlock]) -> float:
    """How much less the scaler over-provisions than the HPA at the same share of short steps; 1
    where no target of the HPA is short so seldom.
    """
    ours = Sums.together([block.ours for block in blocks])
    theirs = Sums.together([block.hpa for block in blocks])
    (over_provision,) = envelope_at(theirs, (shortfall(ours),))
    return float(1.0 - ours.unused[0] / ours.work / over_provision)


def shortfall(sums: Sums) -> float:
    """The share of short steps."""
    return float(sums.short[0] / sums.steps)
