"""Numbers as ECharts options.

Colours are those of Okabe and Ito, which every kind of colour vision tells apart. What a colour
says is also said by a symbol, a dash or a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
GREY = "#808080"
"""Readable on white and on black."""

SYMBOLS = (
    "circle",
    "rect",
    "triangle",
    "diamond",
    "emptyCircle",
    "emptyRect",
    "emptyTriangle",
    "emptyDiamond",
)
"""One for each series, so that lines differ without colour too."""

FAINT_LINE = {"lineStyle": {"color": GREY, "opacity": 0.3}}
"""For lines behind the data."""

Points = Sequence[tuple[float, float]]
Options = dict[str, Any]


def _frame(unit: str) -> Options:
    """What all charts with axes have in common; `unit` is that of the y axis."""
    text = {"color": GREY}
    return {
        "animation": False,
        "color": list(PALETTE),
        "textStyle": text,
        "tooltip": {"trigger": "axis", "confine": True},
        "legend": {"type": "scroll", "top": 0, "textStyle": text},
        "grid": {"left": 8, "right": 16, "top": 34, "bottom": 8, "containLabel": True},
        "yAxis": {
            "type": "value",
            "name": unit,
            "nameTextStyle": text,
            "axisLabel": text,
            "splitLine": FAINT_LINE,
        },
    }


def _named_axis(name: str) -> Options:
    return {
        "type": "value",
        "name": name,
        "nameLocation": "middle",
        "nameGap": 24,
        "splitLine": FAINT_LINE,
        "axisLabel": {"color": GREY},
    }


def over_time(
    series: Mapping[str, Points],
    unit: str,
    *,
    stacked: bool = False,
    steps: Sequence[str] = (),
    dashed_suffix: str = "",
) -> Options:
    """Lines over time, x in Unix milliseconds.

    Args:
        series: points by name.
        unit: of the y axis.
        stacked: fill the lines and put each on top of the one before.
        steps: names of series that change in steps.
        dashed_suffix: series whose name ends so are dashed.
    """
    lines = []
    for number, (name, points) in enumerate(series.items()):
        line: Options = {
            "name": name,
            "type": "line",
            "data": [list(point) for point in points],
            "symbol": SYMBOLS[number % len(SYMBOLS)],
            "symbolSize": 5,
            "showSymbol": len(points) < 40,
        }
        if stacked:
            line |= {"stack": "all", "areaStyle": {"opacity": 0.5}}
        if name in steps:
            line["step"] = "end"
        if dashed_suffix and name.endswith(dashed_suffix):
            line["lineStyle"] = {"type": "dashed"}
        lines.append(line)
    return {
        **_frame(unit),
        "xAxis": {"type": "time", "axisLabel": {"color": GREY}},
        "series": lines,
    }


def over_steps(series: Mapping[str, Sequence[float]], unit: str) -> Options:
    """Lines over numbered steps, without labels on the x axis."""
    points = {
        name: [(float(step), value) for step, value in enumerate(values)]
        for name, values in series.items()
    }
    steps = max((len(values) for values in series.values()), default=1)
    axis = {
        "type": "value",
        "min": 0,
        "max": steps - 1,
        "axisLabel": {"show": False},
        "splitLine": FAINT_LINE,
    }
    return {**over_time(points, unit), "xAxis": axis}


def curve(series: Mapping[str, Points], x_name: str) -> Options:
    """Shares as lines over a number."""
    return {**over_time(series, "share"), "xAxis": {**_named_axis(x_name), "scale": True}}


def bars(
    categories: Sequence[str],
    series: Mapping[str, Sequence[float]],
    unit: str,
    *,
    stacked: bool = False,
) -> Options:
    """Bars by category; each series has one value for each category."""
    stack = {"stack": "all"} if stacked else {}
    drawn = [
        {"name": name, "type": "bar", "data": list(values), **stack}
        for name, values in series.items()
    ]
    axis = {
        "type": "category",
        "data": list(categories),
        "axisLabel": {"color": GREY, "interval": 0},
    }
    return {**_frame(unit), "xAxis": axis, "series": drawn}


def dots_over_time(series: Mapping[str, Points], unit: str) -> Options:
    """Dots over time, x in Unix milliseconds."""
    drawn = [
        {
            "name": name,
            "type": "scatter",
            "data": [list(point) for point in points],
            "symbol": SYMBOLS[number % len(SYMBOLS)],
            "symbolSize": 8,
        }
        for number, (name, points) in enumerate(series.items())
    ]
    return {
        **_frame(unit),
        "tooltip": {"trigger": "item"},
        "xAxis": {"type": "time"},
        "series": drawn,
    }


@dataclass(frozen=True)
class GraphEdge:
    """Calls from one service to another."""

    client: str
    server: str
    calls: float
    label: str
    bad: bool
    """Drawn dashed, because some calls failed."""


def graph(edges: Sequence[GraphEdge]) -> Options:
    """Who calls whom, callers on the left."""
    most = max((edge.calls for edge in edges), default=1.0) or 1.0
    series = {
        "type": "graph",
        "layout": "none",
        "data": _nodes(edges),
        "links": [_link(edge, most) for edge in edges],
        "edgeSymbol": ["none", "arrow"],
        "zoom": 0.8,
        "label": {"show": True, "position": "bottom", "color": GREY},
        "roam": True,
    }
    return {"animation": False, "tooltip": {"confine": True}, "series": [series]}


def _nodes(edges: Sequence[GraphEdge]) -> list[Options]:
    """A node for each service, in columns by its distance from the outermost caller."""
    rows_in_column: dict[int, int] = {}
    nodes = []
    for number, (name, column) in enumerate(_columns(edges).items()):
        row = rows_in_column.get(column, 0)
        rows_in_column[column] = row + 1
        nodes.append(
            {
                "name": name,
                "x": column * 180,
                "y": row * 110 + (column % 2) * 30,
                "symbolSize": 46,
                "itemStyle": {"color": PALETTE[number % len(PALETTE)]},
            }
        )
    return nodes


def _columns(edges: Iterable[GraphEdge]) -> dict[str, int]:
    """The column of each service: one to the right of its rightmost caller.

    Services that call each other in a circle end in the last column.
    """
    columns: dict[str, int] = {}
    for edge in edges:
        columns.setdefault(edge.client, 0)
        columns.setdefault(edge.server, 0)
    last = len(columns)
    for _ in range(last):
        for edge in edges:
            if edge.client != edge.server:
                right = max(columns[edge.server], columns[edge.client] + 1)
                columns[edge.server] = min(right, last)
    return columns


def _link(edge: GraphEdge, most_calls: float) -> Options:
    return {
        "source": edge.client,
        "target": edge.server,
        "label": {"show": True, "formatter": edge.label, "color": GREY, "fontSize": 12},
        "lineStyle": {
            "curveness": 0.12,
            "color": GREY,
            "opacity": 1.0,  # the label has the line's opacity
            "width": 1 + 5 * edge.calls / most_calls,
            "type": "dashed" if edge.bad else "solid",
        },
    }
