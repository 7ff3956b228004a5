"""The result of a benchmark, and how it is printed and written. Nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

from penstock.bench.harness.intervals import Interval

Number = float | int


@dataclass(frozen=True)
class Bound:
    """What a figure has to reach; `op` is `>=` or `<=`."""

    op: Literal[">=", "<="]
    value: float

    def holds(self, figure: Number) -> bool:
        """Whether the figure reaches it."""
        return figure >= self.value if self.op == ">=" else figure <= self.value

    def __str__(self) -> str:
        return f"{self.op} {self.value:g}"


class Judgement(Enum):
    """What a figure and its interval say of a bound."""

    MET = "met"
    UNCERTAIN = "reached, interval does not clear it"
    NO_INTERVAL = "reached, no interval"
    SHORT = "**short**"


@dataclass(frozen=True)
class Table:
    """Rows to print beside the figures, also where we do worse than others."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Number, ...], ...]


@dataclass(frozen=True)
class Plot:
    """Lines or bars (`kind`) to draw; `series` is label → (x values, y values)."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[list[float], list[float]]]
    kind: Literal["line", "bar"] = "line"


@dataclass(frozen=True)
class Result:
    """What a benchmark measured.

    Attributes:
        figures: by name; names of ratios and counts have no unit, others end with it.
        bounds: what figures have to reach, by name.
        context: data, seeds, sizes and other circumstances.
        tables: beside the figures.
        plots: drawn for the page.
        notes: sentences for the page.
        intervals: of figures, by name; `context` is without what `circumstances` says.
        exact: names of figures that need no interval: counts of the very thing that is judged
            (cases that failed, files opened, bytes), which another run of the same commit gives
            again.
        not_run: what was not measured for want of hardware or of another program, and why; empty
            where everything was.
    """

    figures: Mapping[str, Number]
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    exact: Set[str] = frozenset()
    not_run: str = ""

    def judgement(self, name: str) -> Judgement | None:
        """What is said of a figure's bound; None where it has none."""
        bound = self.bounds.get(name)
        if bound is None:
            return None
        if not bound.holds(self.figures[name]):
            return Judgement.SHORT
        if name in self.exact:
            return Judgement.MET
        interval = self.intervals.get(name)
        if interval is None:
            return Judgement.NO_INTERVAL
        clears = bound.holds(interval.low) and bound.holds(interval.high)
        return Judgement.MET if clears else Judgement.UNCERTAIN

    def got(self, name: str) -> str:
        """A figure with its interval and sample size, or that it is exact."""
        value, interval = _rounded(self.figures[name]), self.intervals.get(name)
        if name in self.exact:
            return f"{value} (exact)"
        if interval is None:
            return str(value)
        low, high = _rounded(interval.low), _rounded(interval.high)
        return f"{value} [{low}, {high}; {interval.n} {interval.of}]"


def summary(name: str, result: Result, circumstances: Mapping[str, object]) -> dict[str, object]:
    """A run for machines: figures, their intervals, and what it was made of."""
    intervals = {
        key: {**asdict(interval), "low": _rounded(interval.low), "high": _rounded(interval.high)}
        for key, interval in result.intervals.items()
    }
    return {
        "bench": name,
        "figures": {key: _rounded(value) for key, value in result.figures.items()},
        "intervals": intervals,
        "exact": sorted(result.exact & set(result.figures)),
        "context": {**circumstances, **result.context},
    }


def last_line(name: str, result: Result, circumstances: Mapping[str, object]) -> str:
    """The JSON object that ends every benchmark's standard output."""
    return json.dumps(summary(name, result, circumstances), default=str)


def _rounded(value: Number) -> Number:
    return value if isinstance(value, int) else float(f"{value:.5g}")


def markdown(
    name: str,
    description: str,
    result: Result,
    plots: list[str],
    circumstances: Mapping[str, object],
) -> str:
    """The page of a benchmark: figures with their bounds, tables, plots, notes, circumstances."""
    figures = (_row(key, result) for key in result.figures)
    lines = [f"# {name}", "", description.strip(), ""]
    lines += [f"{NOT_RUN} {result.not_run}", ""] if result.not_run else []
    lines += ["| figure | asked | got | |", "|---|---|---|---|", *figures, "", INTERVALS]
    for table in result.tables:
        lines += _table(table)
    for path in plots:
        lines += ["", f"![{path}]({path})"]
    if result.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in result.notes)]
    lines += ["", "## Circumstances", ""]
    lines += [
        f"- {key}: {_said(value)}" for key, value in {**circumstances, **result.context}.items()
    ]
    return "\n".join(lines) + "\n"


NOT_RUN = "**Not run:**"
"""Begins the line of a page that says what could not be measured where it was made."""
INTERVALS = (
    "In brackets: the 95 % interval, and what it was computed from. A figure is met where the "
    "whole interval reaches what was asked; exact figures are counts, which have none."
)


def _said(value: object) -> str:
    """A value of the circumstances, for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return str(value)


def _table(table: Table) -> list[str]:
    head = ["", f"## {table.title}", "", "| " + " | ".join(table.columns) + " |"]
    rows = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows]
    return [*head, "|---" * len(table.columns) + "|", *rows]


REMEASURED = "Taken apart from the rest"
"""Begins the line of a page that names figures which were measured later than the others."""


def with_remeasured(page: str, result: Result, how: str) -> str:
    """A page with these figures in place of its own, and a line that names them.

    Args:
        page: the page so far.
        result: the new figures, their intervals and what they have to reach.
        how: when and how they were measured.

    Raises:
        ValueError: the page has no row of a figure.
    """
    lines = [line for line in page.splitlines() if not line.startswith(REMEASURED)]
    rows = {line.split("`")[1]: at for at, line in enumerate(lines) if line.startswith("| `")}
    for name in result.figures:
        if name not in rows:
            raise ValueError(f"the page has no row of {name}")
        lines[rows[name]] = _row(name, result)
    after = max(rows.values()) + 1
    if lines[after : after + 2] == ["", ""]:
        del lines[after]
    names = ", ".join(f"`{name}`" for name in result.figures)
    note = f"{REMEASURED}, {how}: {names}."
    return "\n".join([*lines[:after], "", note, *lines[after:]]) + "\n"


def _row(name: str, result: Result) -> str:
    judgement = result.judgement(name)
    verdict = judgement.value if judgement is not None else ""
    return f"| `{name}` | {result.bounds.get(name, '')} | {result.got(name)} | {verdict} |"


def _cell(cell: str | Number) -> str:
    return cell if isinstance(cell, str) else str(_rounded(cell))


def draw(name: str, result: Result, folder: Path) -> list[str]:
    """Write each plot as SVG into `folder`; return the file names."""
    import matplotlib  # takes a second to import, and most runs draw nothing

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "penstock"
    from matplotlib import pyplot

    names = []
    for number, plot in enumerate(result.plots, start=1):
        figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
        for label, (x, y) in plot.series.items():
            if plot.kind == "bar":
                axes.bar(x, y, label=label)
            else:
                axes.plot(x, y, label=label, linewidth=1.5)
        axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        names.append(f"{name}-{number}.svg")
        figure.savefig(folder / names[-1], metadata={"Date": None})
        pyplot.close(figure)
    return names
