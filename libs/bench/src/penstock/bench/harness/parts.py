"""Benchmarks of several parts, each of which can be run alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

from penstock.bench.harness.intervals import Interval
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Number, Result, Table


@dataclass(frozen=True)
class Part:
    """What one part of a benchmark measured; see `Result`."""

    figures: Mapping[str, Number]
    context: Mapping[str, object] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    exact: Set[str] = frozenset()


Measure = Callable[[bool], Part]
"""Measures one part; told whether the run is a quick one."""


def run_parts(
    benchmark: str,
    parts: Mapping[str, Measure],
    options: Options,
    bounds: Mapping[str, Bound],
    context: Mapping[str, object],
) -> Result:
    """Run the part that is asked for, or all of them.

    Args:
        benchmark: its name, for progress.
        parts: by name, in their order.
        options: of the command line.
        bounds: of all figures; where all parts ran, the page names those without a figure.
        context: of all parts.
    """
    figures: dict[str, Number] = {}
    said = dict(context)
    tables: tuple[Table, ...] = ()
    intervals: dict[str, Interval] = {}
    exact: set[str] = set()
    for name in (options.part,) if options.part else parts:
        say(f"{benchmark}: {name}")
        part = parts[name](options.quick)
        figures |= part.figures
        said |= part.context
        tables += part.tables
        intervals |= part.intervals
        exact |= part.exact
    measured = {name: bound for name, bound in bounds.items() if name in figures}
    missing = [name for name in bounds if name not in figures]
    not_run = f"{', '.join(missing)}." if missing and not options.part else ""
    return Result(
        figures, measured, said, tables, intervals=intervals, exact=exact, not_run=not_run
    )
