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
HPA_TOLERANCE = 0.1
HPA_STABLE_S = 300.0
KPA_STABLE_S, KPA_PANIC_S, KPA_PANIC_RATIO, KPA_DOWN = 60.0, 6.0, 2.0, 2.0


def hpa(work: Array, step_s: float, target: float) -> Array:
    """Kubernetes' HorizontalPodAutoscaler v2 with its defaults: no change within 10 %, down to the
    most of the last 300 s.
    """
    window = max(1, round(HPA_STABLE_S / step_s) + 1)
    wanted, current = np.empty_like(work), float(work[0] / target)
    recent: list[float] = []
    for now, arrived in enumerate(work):
        ratio = float(arrived) / (max(current, 1e-9) * target)
        desired = current if abs(ratio - 1.0) <= HPA_TOLERANCE else current * ratio
        # An empty fleet measures nothing; it begins at what arrived.
        desired = max(desired, 1e-6)
        recent = [*recent[-(window - 1) :], desired] if window > 1 else [desired]
        current = desired if desired > current else max(recent)
        wanted[now] = current
    return wanted


def kpa(work: Array, step_s: float, target: float) -> Array:
    """Knative's autoscaler with its defaults: a mean of 60 s, panic on twice the capacity in 6 s,
    down by half at most.
    """
    stable, panic = max(1, round(KPA_STABLE_S / step_s)), max(1, round(KPA_PANIC_S / step_s))
    wanted, current, calm_at = np.empty_like(work), float(work[0] / target), -1
    for now in range(len(work)):
        mean = float(work[max(0, now - stable + 1) : now + 1].mean()) / target
        short = float(work[max(0, now - panic + 1) : now + 1].mean()) / target
        if short >= KPA_PANIC_RATIO * current:
            calm_at = now + stable
        desired = max(mean, short, current) if now < calm_at else max(mean, current / KPA_DOWN)
        current = max(desired, 1e-6)
        wanted[now] = current
    return wanted


def held_maximum(work: Array, hold: int, target: float) -> Array:
    """The most of the last `hold` samples over a target."""
    padded = np.concatenate([np.full(hold - 1, work[0]), work])
    most: Array = np.lib.stride_tricks.sliding_window_view(padded, hold).max(1) / target
    return most


class Curve:
    """Over-provision against shortfall of one rule as its knob is turned, and its lower
    envelope.
    """

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def add(self, work: Array, capacity: Array) -> None:
        """One setting of the knob: capacity in force while `work` arrived, both of the evaluated
        steps.
        """
        short = float((work > capacity).mean())
        self.points.append((short, float(np.maximum(capacity - work, 0.0).sum() / work.sum())))

    def at(self, shortfall: float) -> float:
        """Over-provision, as a share of the work, where the shortfall is exactly this; infinite
        where the rule cannot reach it.
        """
        best: list[tuple[float, float]] = []
        least = math.inf
        for short, over in sorted(self.points):
            if over < least:
                best.append((short, over))
                least = over
        return _between(best, shortfall)


def _between(best: Sequence[tuple[float, float]], shortfall: float) -> float:
    if not best or best[0][0] > shortfall:
        return math.inf
    shares, costs = zip(*best, strict=True)
    return float(np.interp(shortfall, shares, costs))


def clairvoyant(work: Array, hold: int) -> float:
    """Over-provision of one who knows the future and keeps each instance `hold` steps; 0 for one
    step.
    """
    return float(np.maximum(held_maximum(work, hold, 1.0) - work, 0.0).sum() / work.sum())
