"""What wrong labels cost: calls saved and precision of hits over the share of labels that err.

A request that is called, for an audit or because it was not served, tells the cache its answer. A
wrong label is the answer of a random other intent, which teaches the scope that the vote was wrong
and is stored with the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from penstock.bench.harness.data_sets import BANKING77, CLINC150
from penstock.bench.harness.intervals import Interval
from penstock.bench.harness.parts import Part
from penstock.bench.harness.report import Number, Plot, Table
from penstock.bench.semantic_cache.jobs import JUDGE_ERRORS, LOOSE
from penstock.bench.semantic_cache.stream import Job

NAMES = {
    BANKING77: ("call_cut_", "hit_precision_"),
    CLINC150: ("clinc_call_cut_", "clinc_precision_"),
}
"""How the names of cut and precision begin."""
SHARES = (0.0, *JUDGE_ERRORS)
COLUMNS = ("data", "wrong labels", "cut", "95 % interval", "precision", "95 % interval")


def noise_table(streamed: Part) -> Table:
    """Cut and precision at 0.03 by the share of wrong labels, with their intervals."""
    rows: list[tuple[str | Number, ...]] = []
    for corpus, names in NAMES.items():
        for share in SHARES:
            cells = [_cells(streamed, name + _variant(share)) for name in names]
            rows.append((corpus, share, *cells[0], *cells[1]))
    return Table(f"Wrong labels, bound {LOOSE}", COLUMNS, tuple(rows))


def noise_plot(figures: Mapping[str, Number]) -> Plot:
    """The same as curves; no point where nothing was served."""
    percent = [100 * share for share in SHARES]
    series = {
        f"{label} ({corpus})": (percent, _curve(figures, name))
        for corpus, names in NAMES.items()
        for label, name in zip(("calls saved", "hits that are right"), names, strict=True)
    }
    return Plot("Labels that are wrong", "labels that are wrong, %", "share", series)


def _variant(share: float) -> str:
    return Job("", LOOSE, 0, judge_errors=share).variant


def _curve(figures: Mapping[str, Number], name: str) -> list[float]:
    return [float(figures.get(name + _variant(share), math.nan)) for share in SHARES]


def _cells(streamed: Part, name: str) -> Sequence[str | Number]:
    """A figure and its interval; dashes where nothing was served."""
    if name not in streamed.figures:
        return "–", "–"
    return streamed.figures[name], _ends(streamed.intervals.get(name))


def _ends(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"
