"""The result of a benchmark, and how it is printed and written. Nothing is measured here."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

Number = float | int
VERSIONS_OF = ("grpcio", "numpy", "onnxruntime", "uvloop")
"""Packages that a figure may depend on, whose versions stand in the log."""
VECTOR_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


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
    """

    figures: Mapping[str, Number]
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()


def machine() -> dict[str, object]:
    """The processor, its cores and vector features, and the version of Python; no host name."""
    flags = _cpuinfo("flags").split()
    return {
        "cpu": _cpuinfo("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "features": [feature for feature in VECTOR_FEATURES if feature in flags],
        "python": platform.python_version(),
    }


def _cpuinfo(field: str) -> str:
    """The first value of a field in /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def last_line(name: str, result: Result) -> str:
    """The JSON object that ends every benchmark's standard output."""
    figures = {key: _rounded(value) for key, value in result.figures.items()}
    context = {**machine(), **result.context}
    return json.dumps({"bench": name, "figures": figures, "context": context}, default=str)


@dataclass(frozen=True)
class Run:
    """When and with what a benchmark ran.

    Attributes:
        command: that repeats it.
        commit: of the checkout.
        date: and time, ISO 8601.
    """

    command: str
    commit: str
    date: str

    @property
    def circumstances(self) -> dict[str, object]:
        """These, the machine and the versions of what figures depend on."""
        versions = {package: metadata.version(package) for package in VERSIONS_OF}
        said = {"command": f"`{self.command}`", "commit": self.commit, "date": self.date}
        return {**said, **machine(), "versions": versions}

    def log_row(self, name: str, result: Result) -> dict[str, object]:
        """The run as a line of the log of all runs."""
        figures = {key: _rounded(value) for key, value in result.figures.items()}
        return {"bench": name, **self.circumstances, "figures": figures}


def _rounded(value: Number) -> Number:
    return value if isinstance(value, int) else float(f"{value:.5g}")


def markdown(name: str, description: str, result: Result, plots: list[str], run: Run) -> str:
    """The page of a benchmark: figures with their bounds, tables, plots, notes, circumstances."""
    figures = (_row(key, value, result.bounds.get(key)) for key, value in result.figures.items())
    lines = [f"# {name}", "", description.strip(), ""]
    lines += ["| figure | asked | got | |", "|---|---|---|---|", *figures]
    for table in result.tables:
        lines += _table(table)
    for path in plots:
        lines += ["", f"![{path}]({path})"]
    if result.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in result.notes)]
    circumstances = {**run.circumstances, **result.context}
    lines += ["", "## Circumstances", ""]
    lines += [f"- {key}: {value}" for key, value in circumstances.items()]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    head = ["", f"## {table.title}", "", "| " + " | ".join(table.columns) + " |"]
    rows = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows]
    return [*head, "|---" * len(table.columns) + "|", *rows]


REMEASURED = "Taken apart from the rest"
"""Begins the line of a page that names figures which were measured later than the others."""


def with_remeasured(
    page: str, figures: Mapping[str, Number], bounds: Mapping[str, Bound], how: str
) -> str:
    """A page with these figures in place of its own, and a line that names them.

    Args:
        page: the page so far.
        figures: the new figures.
        bounds: what they have to reach.
        how: when and how they were measured.

    Raises:
        ValueError: the page has no row of a figure.
    """
    lines = [line for line in page.splitlines() if not line.startswith(REMEASURED)]
    rows = {line.split("`")[1]: at for at, line in enumerate(lines) if line.startswith("| `")}
    for name, value in figures.items():
        if name not in rows:
            raise ValueError(f"the page has no row of {name}")
        lines[rows[name]] = _row(name, value, bounds.get(name))
    after = max(rows.values()) + 1
    if lines[after : after + 2] == ["", ""]:
        del lines[after]
    names = ", ".join(f"`{name}`" for name in figures)
    note = f"{REMEASURED}, {how}: {names}."
    return "\n".join([*lines[:after], "", note, *lines[after:]]) + "\n"


def _row(name: str, value: Number, bound: Bound | None) -> str:
    verdict = "" if bound is None else ("met" if bound.holds(value) else "**short**")
    return f"| `{name}` | {bound or ''} | {_rounded(value)} | {verdict} |"


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
