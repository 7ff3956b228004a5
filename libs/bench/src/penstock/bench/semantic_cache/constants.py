"""Constants of the decision that were chosen on data, and how they are chosen anew.

The shipped values of three of them were chosen on shuffles of all queries of Banking77 and of
CLINC150 (docs/decisions/0024-what-an-audit-weighs.md), so a figure with them is not of held-out
data, whichever intents it is of. What the same choice is worth on data that it has not seen is
measured by choosing again: the values that are best on one half of Banking77's intents are reported
on the other half, and those that are best on both on CLINC150.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from penstock.cache.semantic import threshold


@dataclass(frozen=True)
class Constants:
    """Values of the constants of these names in `penstock.cache.semantic.threshold`.

    Attributes:
        max_labels: latest labels on which the calibration is fitted.
        lapse_rate: share of cached answers that are wrong whatever the similarity.
        prior_error_ratio: observed over expected errors before there are audits.
    """

    max_labels: int
    lapse_rate: float
    prior_error_ratio: float


SHIPPED = Constants(threshold.MAX_LABELS, threshold.LAPSE_RATE, threshold.PRIOR_ERROR_RATIO)
CANDIDATES = tuple(
    Constants(*values)
    for values in itertools.product((500, 1_500), (0.002, 0.008), (0.5, 0.75, 1.0))
)
"""Among which the choice is made; the shipped values are none of them. A stream of half of the
intents has 800 to 1,500 labels.
"""


@contextmanager
def in_force(constants: Constants) -> Iterator[None]:
    """Let the decision of this process run with these constants.

    They are no settings of the product and are not passed to the decision, so they are put into
    its module; a worker process runs one stream at a time.
    """
    _put(constants)
    try:
        yield
    finally:
        _put(SHIPPED)


def _put(values: Constants) -> None:
    threshold.MAX_LABELS = values.max_labels
    threshold.LAPSE_RATE = values.lapse_rate
    threshold.PRIOR_ERROR_RATIO = values.prior_error_ratio


class Outcome(NamedTuple):
    """What a stream came to: the share of calls saved, and of the hits that were right."""

    cut: float
    precision: float


def best(outcomes: Mapping[Constants, Sequence[Outcome]], bound: float) -> Constants:
    """The constants that save most calls among those that keep the bound on every shuffle.

    Where none does, those whose worst precision is highest.
    """

    def worst(constants: Constants) -> float:
        return min(each.precision for each in outcomes[constants])

    def saved(constants: Constants) -> float:
        return sum(each.cut for each in outcomes[constants])

    within = [constants for constants in outcomes if worst(constants) >= 1 - bound]
    return max(within, key=saved) if within else max(outcomes, key=worst)
