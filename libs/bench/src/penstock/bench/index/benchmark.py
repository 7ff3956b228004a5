"""Index: what is claimed of systems like this one beside what the other pages measured.

Nothing is measured here: the pages in `docs/benchmarks` are read. A claim is met where the figure
lies in its range and beaten above it. Beside the verdict stands what to know of the figure: that it
is simulated, or flattered by its circumstances.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.bench.harness.options import Options
from penstock.bench.harness.registry import BENCHMARKS
from penstock.bench.harness.report import Bound, Number, Result, Table
from penstock.bench.index.claims import CLAIMS, Verdict
from penstock.bench.index.pages import Page, read_pages

PAGES = Path("docs/benchmarks")
BOUNDS = {
    "claims": Bound(">=", 15),
    "claims_without_verdict": Bound("<=", 0),
    "benchmarks_without_interval": Bound("<=", 0),
    "benchmarks_without_page": Bound("<=", 0),
}


def run(_: Options) -> Result:
    """Read the pages."""
    names = tuple(name for name in BENCHMARKS if name != "index")
    pages = list(read_pages(PAGES, names))
    measured = {page.name: page.figures for page in pages}
    verdicts = [claim.verdict(claim.value(measured)) for claim in CLAIMS]
    figures = {
        "claims": len(CLAIMS),
        "claims_beaten": verdicts.count(Verdict.BEATEN),
        "claims_met": verdicts.count(Verdict.MET),
        "claims_short": verdicts.count(Verdict.SHORT),
        "claims_without_verdict": verdicts.count(Verdict.OPEN),
        "benchmarks_without_interval": sum(not page.has_interval for page in pages),
        "benchmarks_without_page": len(names) - len(pages),
        "figures_met": sum(len(page.met) for page in pages),
        "figures_short": sum(len(page.short) for page in pages),
    }
    return Result(figures, BOUNDS, {}, (_claims(measured), _pages(pages)))


def _claims(measured: dict[str, dict[str, float]]) -> Table:
    rows: list[tuple[str | Number, ...]] = []
    for claim in CLAIMS:
        value = claim.value(measured)
        got: str | Number = "–" if value is None else value
        rows.append((claim.text, got, claim.verdict(value).value, claim.where, claim.caveat))
    columns = ("claim", "measured", "verdict", "figure", "what to know")
    return Table("Claims", columns, tuple(rows))


def _pages(pages: Sequence[Page]) -> Table:
    rows = tuple(
        (
            f"[{page.name}]({page.name}.md)",
            f"`python -m penstock.bench {page.name}`",
            len(page.met),
            ", ".join(f"`{name}`" for name in page.short),
        )
        for page in pages
    )
    return Table("Pages", ("page", "command", "figures met", "figures short"), rows)
