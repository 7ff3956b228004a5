"""The reactive rules that the scaler is compared with, and the arithmetic of the comparison.

Instances are fractional and do one unit of work each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TARGETS = np.concatenate([np.geomspace(0.04, 0.5, 40, endpoint=False), np.linspace(0.5, 1.6, 45)])
"""Utilisation targets that each rule is swept over."""
HOLDS = (1, 2, 3, 6, 12, 24)
"""Samples that the maximum is taken of."""
HPA_TOLERANCE = 0.1
HPA_STABLE_S = 300.0
KPA_STABLE_S, KPA_PANIC_S, KPA_PANIC_RATIO, KPA_MAX_DOWN_RATIO = 60.0, 6.0, 2.0, 2.0


def hpa(work: Array, step_s: float, target: float, *, whole: bool = False) -> Array:
    """Return what Kubernetes' HorizontalPodAutoscaler v2 wants after each step, by its defaults.

    No change within 10 %; down to the maximum of what was wanted in the last 300 s. With `whole`,
    whole instances and at least one, as it wants them.
    """
    window = max(1, round(HPA_STABLE_S / step_s) + 1)
    wanted = np.empty_like(work)
    current = float(work[0] / target)
    if whole:
        current = max(1.0, math.ceil(current))
    recent: list[float] = []
    for now, arrived in enumerate(work):
        ratio = float(arrived) / (max(current, 1e-9) * target)
        desired = current if abs(ratio - 1.0) <= HPA_TOLERANCE else current * ratio
        # An empty fleet measures nothing; it begins with what arrived.
        desired = max(1.0, math.ceil(desired)) if whole else max(desired, 1e-6)
        recent = [*recent[-(window - 1) :], desired] if window > 1 else [desired]
        current = desired if desired > current else max(recent)
        wanted[now] = current
    return wanted


def kpa(work: Array, step_s: float, target: float) -> Array:
    """Return what Knative's autoscaler wants after each step, by its defaults.

    A mean of 60 s; panic where 6 s need twice the capacity; down by half at most.
    """
    stable = max(1, round(KPA_STABLE_S / step_s))
    panic = max(1, round(KPA_PANIC_S / step_s))
    wanted = np.empty_like(work)
    current = float(work[0] / target)
    panic_until = -1
    for now in range(len(work)):
        mean = float(work[max(0, now - stable + 1) : now + 1].mean()) / target
        short_mean = float(work[max(0, now - panic + 1) : now + 1].mean()) / target
        if short_mean >= KPA_PANIC_RATIO * current:
            panic_until = now + stable
        if now < panic_until:
            desired = max(mean, short_mean, current)
        else:
            desired = max(mean, current / KPA_MAX_DOWN_RATIO)
        current = max(desired, 1e-6)
        wanted[now] = current
    return wanted


def held_maximum(work: Array, hold: int, target: float) -> Array:
    """Return the maximum of the last `hold` samples over a target utilisation."""
    padded = np.concatenate([np.full(hold - 1, work[0]), work])
    maximum: Array = np.lib.stride_tricks.sliding_window_view(padded, hold).max(1) / target
    return maximum


@dataclass(frozen=True)
class Sums:
    """A rule over some steps, for each value of its parameter.

    Attributes:
        short: steps with more work than capacity.
        unused: capacity that was not used, summed.
        steps: their number.
        work: summed.
    """

    short: Array
    unused: Array
    steps: int
    work: float

    @classmethod
    def of(cls, work: Array, capacity: Array) -> Sums:
        """Count.

        Args:
            work: of the steps.
            capacity: in force while the work arrived, steps x values of the parameter.
        """
        spare = capacity - work[:, None]
        return cls(
            (spare < 0).sum(0).astype(float),
            np.maximum(spare, 0.0).sum(0),
            len(work),
            float(work.sum()),
        )

    @classmethod
    def together(cls, parts: Sequence[Sums]) -> Sums:
        """Of all steps of these parts."""
        return cls(
            np.sum([part.short for part in parts], axis=0),
            np.sum([part.unused for part in parts], axis=0),
            sum(part.steps for part in parts),
            sum(part.work for part in parts),
        )


def envelope_at(sums: Sums, shortfalls: Sequence[float]) -> tuple[float, ...]:
    """The over-provision, over the work, at each shortfall, on the lower envelope of all values of
    the parameter; infinite where none reaches the shortfall.
    """
    shares, costs = sums.short / sums.steps, sums.unused / sums.work
    order = np.lexsort((costs, shares))
    shares, costs = shares[order], costs[order]
    before = np.minimum.accumulate(np.concatenate([[math.inf], costs[:-1]]))
    shares, costs = shares[costs < before], costs[costs < before]
    return tuple(
        float(np.interp(shortfall, shares, costs)) if shares[0] <= shortfall else math.inf
        for shortfall in shortfalls
    )


def clairvoyant(work: Array, hold: int) -> float:
    """Return the over-provision with perfect foresight where each instance is kept `hold` steps."""
    return float(np.maximum(held_maximum(work, hold, 1.0) - work, 0.0).sum() / work.sum())
