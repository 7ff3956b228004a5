"""Numbers as ECharts options.

Colours are those of Okabe and Ito, which every kind of colour vision tells apart. What a colour
says is also said by a symbol, a dash or a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from penstock.console.drawing.graph_layout import NODE_PX, ROW_PX, Layout, Place, lay_out

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

AXIS_LINE = {"show": True, "onZero": False, "lineStyle": {"color": GREY}}
MIN_PERIOD_MS = 60_000.0
"""Shortest period of a time axis, so that a single point has times beside it."""

UNIT_NAMES = {"1": "share", "By": "bytes", "uUSD": "µ$", "USD": "$"}
"""By OpenTelemetry's unit, where people write another."""

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
        "grid": {"left": 8, "right": 16, "top": 34, "bottom": 26, "containLabel": True},
        "yAxis": {
            "type": "value",
            "name": unit_name(unit),
            "nameTextStyle": {**text, "align": "left"},
            "axisLabel": text,
            "axisLine": AXIS_LINE,
            "axisTick": {"show": True},
            "splitLine": FAINT_LINE,
        },
    }


def unit_name(unit: str) -> str:
    """A unit of OpenTelemetry as people write it, such as `bytes` for `By`."""
    if unit.startswith("{") and unit.endswith("}"):
        return unit[1:-1]
    return UNIT_NAMES.get(unit, unit)


def _time_axis(series: Mapping[str, Points]) -> Options:
    """Unix milliseconds as times of day, over a minute at least."""
    times = [unix_ms for points in series.values() for unix_ms, _ in points]
    axis: Options = {
        "type": "time",
        "name": "time of day",
        "nameLocation": "middle",
        "nameGap": 24,
        "nameTextStyle": {"color": GREY},
        "axisLabel": {"color": GREY, "hideOverlap": True},
        "axisLine": AXIS_LINE,
    }
    if times and max(times) - min(times) < MIN_PERIOD_MS:
        middle = (max(times) + min(times)) / 2
        axis |= {"min": middle - MIN_PERIOD_MS / 2, "max": middle + MIN_PERIOD_MS / 2}
    return axis


def _named_axis(name: str) -> Options:
    return {
        "type": "value",
        "name": name,
        "nameLocation": "middle",
        "nameGap": 24,
        "nameTextStyle": {"color": GREY},
        "axisLine": AXIS_LINE,
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
        "xAxis": _time_axis(series),
        "series": lines,
    }


def until_now(series: Mapping[str, Sequence[float]], unit: str, period_s: float) -> Options:
    """Lines over the seconds up to now; each series divides the period evenly."""
    points = {
        name: [
            (round((step + 0.5) * period_s / len(values) - period_s, 1), value)
            for step, value in enumerate(values)
        ]
        for name, values in series.items()
    }
    axis = {**_named_axis("seconds from now"), "min": -period_s, "max": 0}
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
        "axisLine": AXIS_LINE,
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
        "xAxis": _time_axis(series),
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
    """Who calls whom, callers on the left; see `graph_layout` for where things stand."""
    labels = {(edge.client, edge.server): edge.label for edge in edges}
    layout = lay_out(labels)
    by_pair = {(edge.client, edge.server): edge for edge in edges}
    most = max((edge.calls for edge in edges), default=1.0) or 1.0
    drawn = [_line(by_pair[pair], most, line) for pair, line in layout.lines.items()]
    series = {
        "type": "graph",
        "layout": "none",
        "data": [
            *_nodes(layout),
            *(bend for bends, _ in drawn for bend in bends),
            *(_label_node(pair, place, labels[pair]) for pair, place in layout.labels.items()),
        ],
        "links": [link for _, links in drawn for link in links],
        "zoom": 0.9,
        "roam": True,
        "silent": False,
    }
    return {"animation": False, "tooltip": {"show": False}, "series": [series]}


def graph_height_px(edges: Sequence[GraphEdge]) -> int:
    """How high the drawing of a graph has to be for its rows."""
    rows = lay_out({(edge.client, edge.server): edge.label for edge in edges}).rows
    return 90 + rows * ROW_PX


def _nodes(layout: Layout) -> list[Options]:
    return [
        {
            "name": name,
            "x": place.x,
            "y": place.y,
            "symbolSize": NODE_PX,
            "itemStyle": {"color": PALETTE[number % len(PALETTE)]},
            "label": {"show": True, "position": "bottom", "color": GREY, "fontSize": 12},
        }
        for number, (name, place) in enumerate(layout.nodes.items())
    ]


def _line(
    edge: GraphEdge, most_calls: float, line: Sequence[Place]
) -> tuple[list[Options], list[Options]]:
    """(bends, links) of an edge; only its last link has an arrow."""
    bends = [
        {"name": f"{edge.client}→{edge.server} {number}", "x": place.x, "y": place.y}
        | {"symbolSize": 0.01, "label": {"show": False}}
        for number, place in enumerate(line[1:-1], start=1)
    ]
    names = [edge.client, *(str(bend["name"]) for bend in bends), edge.server]
    style = {
        "color": GREY,
        "opacity": 1.0,
        "width": 1 + 4 * edge.calls / most_calls,
        "type": "dashed" if edge.bad else "solid",
    }
    links: list[Options] = [
        {"source": source, "target": target, "lineStyle": style, "symbol": ["none", "none"]}
        for source, target in pairwise(names)
    ]
    links[-1]["symbol"] = ["none", "arrow"]
    return bends, links


def _label_node(pair: tuple[str, str], place: Place, text: str) -> Options:
    """A label, upright, on a ground that hides the line behind it."""
    return {
        "name": f"{pair[0]}→{pair[1]}",
        "x": place.x,
        "y": place.y,
        "symbolSize": 0.01,
        "label": {
            "show": True,
            "position": "inside",
            "formatter": text,
            "color": "#333333",
            "backgroundColor": "#f2f2f2",
            "padding": [2, 4],
            "borderRadius": 3,
            "fontSize": 12,
        },
    }
