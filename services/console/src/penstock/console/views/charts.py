"""Numbers as ECharts options. Plain: no asking, no drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.console.views.blocks import GREY, PALETTE

Points = Sequence[tuple[float, float]]
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
"""One a series, so that lines differ without colour too."""


FAINT = {"lineStyle": {"color": GREY, "opacity": 0.3}}
"""Lines behind the data, as faint on black as on white."""


def _frame(unit: str) -> dict[str, Any]:
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
            "splitLine": FAINT,
        },
    }


def over_time(
    series: Mapping[str, Points],
    unit: str,
    *,
    stacked: bool = False,
    steps: Sequence[str] = (),
    faint: str = "",
) -> dict[str, Any]:
    """Lines over time, x in Unix milliseconds.

    `steps` names series drawn as steps, `stacked` fills and piles them, those whose name ends in
    `faint` are dashed.
    """
    drawn = []
    for number, (name, points) in enumerate(series.items()):
        line: dict[str, Any] = {
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
        if faint and name.endswith(faint):
            line["lineStyle"] = {"type": "dashed"}
        drawn.append(line)
    return {
        **_frame(unit),
        "xAxis": {"type": "time", "axisLabel": {"color": GREY}},
        "series": drawn,
    }


def curve(series: Mapping[str, Points], x_name: str) -> dict[str, Any]:
    """Lines over a number, both shares."""
    options = over_time(series, "share")
    options["xAxis"] = {
        "type": "value",
        "name": x_name,
        "nameLocation": "middle",
        "nameGap": 24,
        "scale": True,
    }
    options["xAxis"] |= {"splitLine": FAINT, "axisLabel": {"color": GREY}}
    return options


def bars(
    categories: Sequence[str],
    series: Mapping[str, Sequence[float]],
    unit: str,
    *,
    stacked: bool = False,
) -> dict[str, Any]:
    """Bars by category."""
    drawn = [
        {"name": name, "type": "bar", "data": list(values), **({"stack": "all"} if stacked else {})}
        for name, values in series.items()
    ]
    axis = {
        "type": "category",
        "data": list(categories),
        "axisLabel": {"color": GREY, "interval": 0},
    }
    return {**_frame(unit), "xAxis": axis, "series": drawn}


def scatter(series: Mapping[str, Points], x_name: str, y_name: str) -> dict[str, Any]:
    """Dots."""
    drawn = [
        {
            "name": name,
            "type": "scatter",
            "data": [list(p) for p in points],
            "symbol": SYMBOLS[n % 7],
            "symbolSize": 8,
        }
        for n, (name, points) in enumerate(series.items())
    ]
    axis = {
        "type": "value",
        "name": x_name,
        "nameLocation": "middle",
        "nameGap": 24,
        "splitLine": FAINT,
    }
    axis["axisLabel"] = {"color": GREY}
    return {**_frame(y_name), "tooltip": {"trigger": "item"}, "xAxis": axis, "series": drawn}


def graph(edges: Sequence[tuple[str, str, float, str, bool]]) -> dict[str, Any]:
    """Who calls whom: (from, to, calls, words, bad)."""
    names = list(dict.fromkeys(name for edge in edges for name in edge[:2]))
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for start, end, *_rest in edges:
            if start != end:
                depth[end] = min(max(depth[end], depth[start] + 1), len(names))
    most = max((edge[2] for edge in edges), default=1.0) or 1.0
    by_depth: dict[int, int] = {}
    nodes = []
    for number, name in enumerate(names):
        row = by_depth.get(depth[name], 0)
        by_depth[depth[name]] = row + 1
        place = {"x": depth[name] * 180, "y": row * 110 + (depth[name] % 2) * 30}
        nodes.append(
            {
                "name": name,
                **place,
                "symbolSize": 46,
                "itemStyle": {"color": PALETTE[number % len(PALETTE)]},
            }
        )
    line = {"curveness": 0.12, "color": GREY, "opacity": 1.0}  # a label is as faint as its line
    links = [
        {
            "source": start,
            "target": end,
            "label": {"show": True, "formatter": words, "color": GREY, "fontSize": 12},
            "lineStyle": {
                **line,
                "width": 1 + 5 * calls / most,
                "type": "dashed" if bad else "solid",
            },
        }
        for start, end, calls, words, bad in edges
    ]
    shape = {
        "type": "graph",
        "layout": "none",
        "data": nodes,
        "links": links,
        "edgeSymbol": ["none", "arrow"],
        "zoom": 0.8,
        "label": {"show": True, "position": "bottom", "color": GREY},
        "roam": True,
    }
    return {"animation": False, "tooltip": {"confine": True}, "series": [shape]}
