"""What a benchmark gives back, and how it is printed and written. No measuring lives here."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Number = float | int


@dataclass(frozen=True)
class Bound:
    """What a figure is asked to reach: at least or at most a number."""

    op: str
    value: float

    def holds(self, figure: Number) -> bool:
        return figure >= self.value if self.op == ">=" else figure <= self.value

    def __str__(self) -> str:
        return f"{self.op} {self.value:g}"


@dataclass(frozen=True)
class Table:
    """Rows to print beside the figures, losses included."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Number, ...], ...]


@dataclass(frozen=True)
class Plot:
    """Lines or bars to draw: label → (x values, y values)."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[list[float], list[float]]]
    kind: str = "line"


@dataclass(frozen=True)
class Result:
    """Figures by name (ratios and counts without unit, else the unit is in the name), and the
    circumstances they were made in.
    """

    figures: Mapping[str, Number]
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()


def machine() -> dict[str, object]:
    """Describe the machine without naming it: processor, cores, Python, system."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    flags = next(
        (line.split(":", 1)[1].split() for line in _cpuinfo() if line.startswith("flags")), []
    )
    wide = [
        flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags
    ]
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "features": wide,
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def last_line(name: str, result: Result) -> str:
    """The one JSON object that ends every benchmark's standard output."""
    figures = {key: _rounded(value) for key, value in result.figures.items()}
    return json.dumps(
        {"bench": name, "figures": figures, "context": {**machine(), **result.context}}, default=str
    )


def _rounded(value: Number) -> Number:
    return value if isinstance(value, int) else float(f"{value:.5g}")


def markdown(name: str, help_text: str, result: Result, plots: list[str]) -> str:
    """The page of one benchmark: figures against their bounds, tables, plots, circumstances."""
    lines = [
        f"# {name}",
        "",
        help_text.strip(),
        "",
        "| figure | asked | got | |",
        "|---|---|---|---|",
    ]
    lines += [_row(key, value, result.bounds.get(key)) for key, value in result.figures.items()]
    for table in result.tables:
        lines += [
            "",
            f"## {table.title}",
            "",
            "| " + " | ".join(table.columns) + " |",
            "|---" * len(table.columns) + "|",
        ]
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows]
    for path in plots:
        lines += ["", f"![{path}]({path})"]
    if result.notes:
        lines += ["", "## Notes", ""] + [f"- {note}" for note in result.notes]
    lines += ["", "## Circumstances", ""]
    lines += [f"- {key}: {value}" for key, value in {**machine(), **result.context}.items()]
    return "\n".join(lines) + "\n"


APART = "Taken apart from the rest"


def merged(page: str, figures: Mapping[str, Number], bounds: Mapping[str, Bound], said: str) -> str:
    """A page with these figures in place of its own, and a line that says which they are and `said`
    of them.

    Raises:
        ValueError: the page has no row of a figure.
    """
    lines = [line for line in page.splitlines() if not line.startswith(APART)]
    rows = {line.split("`")[1]: at for at, line in enumerate(lines) if line.startswith("| `")}
    for name, value in figures.items():
        if name not in rows:
            raise ValueError(f"the page has no row of {name}")
        lines[rows[name]] = _row(name, value, bounds.get(name))
    after = max(rows.values()) + 1
    if lines[after : after + 2] == ["", ""]:
        del lines[after]
    names = ", ".join(f"`{name}`" for name in figures)
    return "\n".join([*lines[:after], "", f"{APART}, {said}: {names}.", *lines[after:]]) + "\n"


def _row(name: str, value: Number, bound: Bound | None) -> str:
    verdict = "" if bound is None else ("met" if bound.holds(value) else "**short**")
    return f"| `{name}` | {bound or ''} | {_rounded(value)} | {verdict} |"


def _cell(cell: str | Number) -> str:
    return cell if isinstance(cell, str) else str(_rounded(cell))


def draw(name: str, result: Result, folder: Path) -> list[str]:
    """Write each plot as SVG into `folder` and return the file names."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "penstock"
    from matplotlib import pyplot

    names = []
    for number, plot in enumerate(result.plots, start=1):
        figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
        for label, (x, y) in plot.series.items():
            axes.bar(x, y, label=label) if plot.kind == "bar" else axes.plot(
                x, y, label=label, linewidth=1.5
            )
        axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        names.append(f"{name}-{number}.svg")
        figure.savefig(folder / names[-1], metadata={"Date": None})
        pyplot.close(figure)
    return names
