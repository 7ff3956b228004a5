"""Blocks as HTML and numbers as chart options."""

from __future__ import annotations

import pytest
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import (
    Bar,
    Cell,
    Form,
    Note,
    Rows,
    Tile,
    Tiles,
    Waterfall,
)
from penstock.console.drawing.charts import GraphEdge
from penstock.console.drawing.format import dollars, link
from penstock.console.drawing.markup import markup

EVIL = '<img src=x onerror="alert(1)">'


@pytest.mark.parametrize(
    "block",
    [
        Note(EVIL),
        Tiles([Tile(EVIL, EVIL, EVIL)]),
        Rows(EVIL, (EVIL,), [[Cell(EVIL, href=f"/x?{EVIL}")], [EVIL]]),
        Rows("t", ("a",), [], EVIL),
        Form({EVIL: EVIL}, {EVIL: True}),
        Waterfall(EVIL, (EVIL,), [Bar(EVIL, EVIL, 0, 0.0, 1.0, "#000", cells=(EVIL,))]),
    ],
    ids=lambda block: type(block).__name__,
)
def test_text_never_becomes_markup(
    block: Note | Tiles | Rows | Form | Waterfall,
) -> None:
    assert "<img" not in markup(block)


def test_what_is_bad_is_marked_with_a_sign() -> None:
    assert "▲ 3" in markup(Tiles([Tile("lost", "3", bad=True)]))
    assert "▲" not in markup(Tiles([Tile("lost", "0")]))


def test_a_link_keeps_the_theme_and_nothing_else() -> None:
    query = {"theme": "dark", "tenant": "acme"}
    assert link("/traces", query, id="ab") == "/traces?theme=dark&id=ab"
    assert link("/traces", {}) == "/traces"
    assert link("/traces", {}, path="p", query="q") == "/traces?path=p&query=q"


def test_small_amounts_have_six_digits() -> None:
    assert dollars(1_234) == "$0.001234"
    assert dollars(12_345_678_900) == "$12,345.68"


def test_a_service_stands_right_of_all_its_callers() -> None:
    edges = [
        GraphEdge("client", "router", 1.0, "", bad=False),
        GraphEdge("client", "cache", 1.0, "", bad=False),
        GraphEdge("router", "cache", 1.0, "", bad=True),
    ]
    (series,) = charts.graph(edges)["series"]
    x = {node["name"]: node["x"] for node in series["data"]}
    assert x["client"] < x["router"] < x["cache"]
    kinds = {
        (link["source"], link["target"]): link["lineStyle"]["type"] for link in series["links"]
    }
    assert (kinds["client", "router"], kinds["router", "cache"]) == ("solid", "dashed")


def test_services_that_call_each_other_can_be_drawn() -> None:
    edges = [GraphEdge("a", "b", 1.0, "", False), GraphEdge("b", "a", 1.0, "", False)]
    (series,) = charts.graph(edges)["series"]
    assert {"a", "b"} <= {node["name"] for node in series["data"]}


def test_every_chart_has_named_axes_with_lines() -> None:
    points = {"a": [(1_000.0, 1.0)]}
    for options in (
        charts.over_time(points, "By"),
        charts.dots_over_time(points, "ms"),
        charts.until_now({"a": [1.0, 2.0]}, "calls/s", 60.0),
        charts.curve(points, "threshold"),
    ):
        for axis in (options["xAxis"], options["yAxis"]):
            assert axis["name"] and axis["axisLine"]["show"]
            assert axis.get("axisLabel", {}).get("show", True)
    assert charts.bars(["x"], {"a": [1.0]}, "picks")["yAxis"]["name"] == "picks"


def test_a_single_point_has_a_minute_around_it() -> None:
    axis = charts.over_time({"a": [(90_000.0, 1.0)]}, "s")["xAxis"]
    assert (axis["min"], axis["max"]) == (60_000.0, 120_000.0)


def test_the_last_minute_ends_now() -> None:
    options = charts.until_now({"a": [1.0, 2.0, 3.0]}, "calls/s", 60.0)
    assert [x for x, _ in options["series"][0]["data"]] == [-50.0, -30.0, -10.0]
    assert (options["xAxis"]["min"], options["xAxis"]["max"]) == (-60.0, 0)


@pytest.mark.parametrize(
    ("unit", "name"), [("{call}", "call"), ("By", "bytes"), ("1", "share"), ("ms", "ms")]
)
def test_a_unit_is_written_as_people_write_it(unit: str, name: str) -> None:
    assert charts.unit_name(unit) == name
