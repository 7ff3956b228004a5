"""The index of claims: verdicts, and that each claim is answered by a figure that exists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from penstock.bench.harness.intervals import Interval
from penstock.bench.harness.registry import BENCHMARKS, MATRICES, command_of, page_names
from penstock.bench.harness.report import Bound, Result, markdown
from penstock.bench.index.claims import CLAIMS, Answer, Claim, Verdict
from penstock.bench.index.pages import Page, read_page, read_pages

PAGES = Path(__file__).parents[2] / "docs" / "benchmarks"
SAVES = Claim("saves 40-60 %", 0.4, 0.6, "caching", "cut", "")
LEFT = Claim("saves 40-60 %", 0.4, 0.6, "caching", "left", "", is_cost=True)
RESULT = Result(
    {"cut": 0.5, "left": 0.25, "p50": 1.5, "kept": 0.9, "lost": 0, "hop": 1.0, "calls": 7},
    {
        "cut": Bound(">=", 0.4),
        "p50": Bound("<=", 1),
        "kept": Bound(">=", 0.85),
        "lost": Bound("<=", 0),
        "hop": Bound("<=", 2),
    },
    intervals={
        "cut": Interval(0.45, 0.55, 8, "seeds"),
        "left": Interval(0.2, 0.3, 8, "seeds"),
        "kept": Interval(0.8, 0.95, 120, "calls"),
    },
    exact=frozenset({"lost"}),
)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (None, Verdict.OPEN),
        (Answer(0.39, 0.3, 0.5), Verdict.SHORT),
        (Answer(0.41, 0.39, 0.43), Verdict.UNCERTAIN),
        (Answer(0.41, None, None), Verdict.NO_INTERVAL),
        (Answer(0.4, 0.4, 0.4), Verdict.MET),
        (Answer(0.61, 0.59, 0.63), Verdict.MET),
        (Answer(0.63, 0.61, 0.65), Verdict.BEATEN),
    ],
)
def test_the_lower_end_of_the_interval_decides_on_a_claim(
    answer: Answer | None, verdict: Verdict
) -> None:
    assert SAVES.verdict(answer) is verdict


def page() -> Page:
    return read_page("caching", markdown("caching", "Caching.", RESULT, [], {"commit": "abc"}))


def test_what_is_left_counts_as_what_is_saved() -> None:
    pages = {"caching": page()}
    assert SAVES.answer(pages) == Answer(0.5, 0.45, 0.55)
    assert LEFT.answer(pages) == Answer(0.75, 0.7, 0.8)
    assert SAVES.answer({}) is None


def test_a_page_is_read_as_it_was_written() -> None:
    read = page()
    assert {name: figure.value for name, figure in read.figures.items()} == RESULT.figures
    assert (read.met, read.short) == (("cut", "lost"), ("p50",))
    assert read.uncertain == ("kept",)
    assert read.without_interval == ("p50", "hop")


def test_what_could_not_be_measured_is_read_back() -> None:
    result = replace(RESULT, not_run="no GPU was there.")
    read = read_page("gpu", markdown("gpu", "GPU.", result, [], {"commit": "abc"}))
    assert read.not_run == "no GPU was there."
    assert page().not_run == ""


def test_a_longer_run_has_a_page_and_a_command_of_its_own() -> None:
    pages = list(page_names())
    assert len(set(pages)) == len(pages) == len(BENCHMARKS) - 1 + len(MATRICES)
    assert command_of("overhead-matrix") == "python -m penstock.bench overhead --matrix"
    assert command_of("overhead") == "python -m penstock.bench overhead"


def test_a_row_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no figure"):
        read_page("caching", "| `cut` | >= 0.4 | about half | met |")


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.page], ids=str)
def test_the_figure_of_a_claim_stands_on_its_page(claim: Claim) -> None:
    assert claim.page in BENCHMARKS
    for page in read_pages(PAGES, (claim.page,)):  # A new benchmark has none yet.
        assert claim.figure in page.figures
