"""The reactive rules that the scaler is compared with, and the arithmetic of the comparison.

Instances are fractional and do one unit of work each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def hpa(work: Array, step_s: float, target: float) -> Array:
    """Return what Kubernetes' HorizontalPodAutoscaler v2 wants after each step, by its defaults.

    No change within 10 %; down to the maximum of what was wanted in the last 300 s.
    """
    window = max(1, round(HPA_STABLE_S / step_s) + 1)
    wanted = np.empty_like(work)
    current = float(work[0] / target)
    recent: list[float] = []
    for now, arrived in enumerate(work):
        ratio = float(arrived) / (max(current, 1e-9) * target)
        desired = current if abs(ratio - 1.0) <= HPA_TOLERANCE else current * ratio
        # An empty fleet measures nothing; it begins with what arrived.
        desired = max(desired, 1e-6)
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


class Curve:
    """Over-provision against shortfall of one rule as its parameter is swept.

    `points`: (shortfall, over-provision) of each value of the parameter.
    """

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def add(self, work: Array, capacity: Array) -> None:
        """Add one value of the parameter.

        Args:
            work, capacity: of the evaluated steps; the capacity in force while the work arrived.
        """
        shortfall = float((work > capacity).mean())
        unused = np.maximum(capacity - work, 0.0).sum()
        self.points.append((shortfall, float(unused / work.sum())))

    def at(self, shortfall: float) -> float:
        """Return the over-provision, over the work, at this shortfall, on the lower envelope.

        Infinite where the rule cannot reach the shortfall.
        """
        envelope: list[tuple[float, float]] = []
        least = math.inf
        for point in sorted(self.points):
            if point[1] < least:
                envelope.append(point)
                least = point[1]
        return _interpolated(envelope, shortfall)


def _interpolated(envelope: Sequence[tuple[float, float]], shortfall: float) -> float:
    if not envelope or envelope[0][0] > shortfall:
        return math.inf
    shortfalls, costs = zip(*envelope, strict=True)
    return float(np.interp(shortfall, shortfalls, costs))


def clairvoyant(work: Array, hold: int) -> float:
    """Return the over-provision with perfect foresight where each instance is kept `hold` steps."""
    return float(np.maximum(held_maximum(work, hold, 1.0) - work, 0.0).sum() / work.sum())
