"""The index of claims: verdicts, and that each claim is answered by a figure that exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.bench.harness.registry import BENCHMARKS
from penstock.bench.index.claims import CLAIMS, Claim, Verdict
from penstock.bench.index.pages import read_page, read_pages

PAGES = Path(__file__).parents[2] / "docs" / "benchmarks"
SAVES = Claim("saves 40-60 %", 0.4, 0.6, "caching", "cut", "")
LEFT = Claim("saves 40-60 %", 0.4, 0.6, "caching", "left", "", is_cost=True)
PAGE = """\
# caching

| figure | asked | got | |
|---|---|---|---|
| `cut` | >= 0.4 | 0.5 | met |
| `left` |  | 1e-05 |  |
| `p50` | <= 1 | 1.5 | **short** |
"""


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (None, Verdict.OPEN),
        (0.39, Verdict.SHORT),
        (0.4, Verdict.MET),
        (0.6, Verdict.MET),
        (0.61, Verdict.BEATEN),
    ],
)
def test_a_claim_is_met_within_its_range_and_beaten_above(
    value: float | None, verdict: Verdict
) -> None:
    assert SAVES.verdict(value) is verdict


def test_what_is_left_counts_as_what_is_saved() -> None:
    pages = {"caching": {"cut": 0.5, "left": 0.25}}
    assert (SAVES.value(pages), LEFT.value(pages)) == (0.5, 0.75)
    assert SAVES.value({}) is None


def test_a_page_is_read() -> None:
    page = read_page("caching", PAGE)
    assert page.figures == {"cut": 0.5, "left": 1e-05, "p50": 1.5}
    assert (page.met, page.short) == (("cut",), ("p50",))
    assert not page.has_interval
    assert read_page("caching", PAGE + "95 % of the blocks lie within it").has_interval


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.page], ids=str)
def test_the_figure_of_a_claim_stands_on_its_page(claim: Claim) -> None:
    assert claim.page in BENCHMARKS
    for page in read_pages(PAGES, (claim.page,)):  # A new benchmark has none yet.
        assert claim.figure in page.figures
