"""One series at one lead: what each rule over-provides, in blocks of consecutive steps.

Over-provision at a shortfall is read off a curve that is computed from sums over steps, so the
curves of some blocks need only these sums. Steps within a block depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from penstock.bench.scaling.reactive_rules import (
    HOLDS,
    TARGETS,
    Array,
    Sums,
    clairvoyant,
    envelope_at,
    held_maximum,
    hpa,
    kpa,
)
from penstock.bench.scaling.series import Series

BLOCKS = 20
"""Blocks of consecutive steps of each series, as many of each so that one of each is drawn."""
SHORTFALLS = (0.10, 0.05, 0.02)
OURS, HPA, KPA, BEST_REACTIVE = "ours", "HPA", "KPA", "best reactive"


@dataclass(frozen=True)
class CellBlock:
    """Sums over the steps of one block.

    Attributes:
        rules: by rule; the best reactive one has an entry for each hold.
        covered: steps at or below the forecast quantile, at each level that is looked at.
        steps: their number.
        main: the scaler's capacity at the level that is used, summed.
        peak: the most work of a step.
    """

    rules: Mapping[str, Sequence[Sums]]
    covered: Array
    steps: int
    main: float
    peak: float


@dataclass(frozen=True)
class Forecasts:
    """The scaler's side of a cell, for the evaluated steps.

    Attributes:
        final: the scaler's capacity, steps x levels.
        main: its capacity at the level that is used.
        covering: quantiles of the forecast at the levels whose coverage is looked at.
    """

    final: Array
    main: Array
    covering: Array


def blocks_of_cell(series: Series, lead: int, ours: Forecasts) -> list[CellBlock]:
    """The blocks of a cell."""
    steps = np.arange(series.start, len(series.work))
    chosen_at = steps - lead
    work, step_s = series.work, series.step_s
    targets = list(map(float, TARGETS))
    capacities = {
        OURS: [ours.final],
        HPA: [np.stack([hpa(work, step_s, target)[chosen_at] for target in targets], 1)],
        KPA: [np.stack([kpa(work, step_s, target)[chosen_at] for target in targets], 1)],
        BEST_REACTIVE: [
            np.stack([held_maximum(work, hold, target)[chosen_at] for target in targets], 1)
            for hold in HOLDS
        ],
    }
    return [
        CellBlock(
            {
                name: [Sums.of(work[steps[rows]], capacity[rows]) for capacity in of_rule]
                for name, of_rule in capacities.items()
            },
            (work[steps[rows], None] <= ours.covering[rows]).sum(0).astype(float),
            len(rows),
            float(ours.main[rows].sum()),
            float(work[steps[rows]].max()),
        )
        for rows in np.array_split(np.arange(len(steps)), BLOCKS)
    ]


@dataclass(frozen=True)
class Cell:
    """A cell's figures over some of its blocks.

    Attributes:
        rules: over-provision of each rule at each of SHORTFALLS; infinite where it cannot.
        coverage: share of steps at or below the quantile, at each level that is looked at.
        static_cut: mean capacity against a fleet sized for the peak.
    """

    rules: Mapping[str, tuple[float, ...]]
    coverage: tuple[float, ...]
    static_cut: float

    def cuts(self, rule: str) -> list[float]:
        """How much less the scaler over-provisions than a rule, at each of SHORTFALLS."""
        pairs = zip(self.rules[OURS], self.rules[rule], strict=True)
        return [1.0 - ours / theirs if np.isfinite(theirs) else 1.0 for ours, theirs in pairs]


def cell_of(blocks: Sequence[CellBlock]) -> Cell:
    """The figures over these blocks."""
    steps = sum(block.steps for block in blocks)
    rules = {}
    for name, parameters in blocks[0].rules.items():
        sums = [
            Sums.together([block.rules[name][at] for block in blocks])
            for at in range(len(parameters))
        ]
        curves = [envelope_at(each, SHORTFALLS) for each in sums]
        rules[name] = tuple(min(found) for found in zip(*curves, strict=True))
    return Cell(
        rules,
        tuple((np.sum([block.covered for block in blocks], axis=0) / steps).tolist()),
        1.0 - sum(block.main for block in blocks) / steps / max(block.peak for block in blocks),
    )


def best_possible(series: Series) -> float:
    """Over-provision with perfect foresight where each instance is kept two steps."""
    return clairvoyant(series.work[series.start :], 2)
