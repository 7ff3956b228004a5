"""Index: what is claimed of systems like this one beside what the other pages measured.

Nothing is measured here: the pages in `docs/benchmarks` are read. A claim is met where the lower
end of the figure's 95 % interval lies in its range, and beaten above it. Beside the verdict stands
what to know of the figure: that it is simulated, or flattered by its circumstances. A page lacks
its intervals where one of its figures is judged and neither has an interval nor is exact. A page
whose benchmark needs a machine or a program that was not there says so, and is counted apart
(`benchmarks_not_run`): what it lacks is not measured, and none of its figures stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.bench.harness.options import Options
from penstock.bench.harness.registry import command_of, page_names
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
    names = tuple(page_names())
    pages = list(read_pages(PAGES, names))
    measured = {page.name: page for page in pages}
    verdicts = [claim.verdict(claim.answer(measured)) for claim in CLAIMS]
    figures = {
        "claims": len(CLAIMS),
        "claims_beaten": verdicts.count(Verdict.BEATEN),
        "claims_met": verdicts.count(Verdict.MET),
        "claims_uncertain": verdicts.count(Verdict.UNCERTAIN),
        "claims_without_interval": verdicts.count(Verdict.NO_INTERVAL),
        "claims_short": verdicts.count(Verdict.SHORT),
        "claims_without_verdict": verdicts.count(Verdict.OPEN),
        "benchmarks_without_interval": sum(bool(page.without_interval) for page in pages),
        "benchmarks_without_page": len(names) - len(pages),
        "benchmarks_not_run": sum(bool(page.not_run) for page in pages),
        "figures_met": sum(len(page.met) for page in pages),
        "figures_uncertain": sum(len(page.uncertain) for page in pages),
        "figures_without_interval": sum(len(page.without_interval) for page in pages),
        "figures_short": sum(len(page.short) for page in pages),
    }
    tables = (_claims(measured), _pages(pages))
    return Result(figures, BOUNDS, {}, tables, exact=frozenset(figures))


def _claims(measured: Mapping[str, Page]) -> Table:
    rows: list[tuple[str | Number, ...]] = []
    for claim in CLAIMS:
        answer = claim.answer(measured)
        got = "–" if answer is None else str(answer)
        rows.append((claim.text, got, claim.verdict(answer).value, claim.where, claim.caveat))
    columns = ("claim", "measured", "verdict", "figure", "what to know")
    return Table("Claims", columns, tuple(rows))


def _pages(pages: Sequence[Page]) -> Table:
    rows = tuple(
        (
            f"[{page.name}]({page.name}.md)",
            f"`{command_of(page.name)}`",
            len(page.met),
            _quoted(page.uncertain),
            _quoted(page.without_interval),
            _quoted(page.short),
            page.not_run,
        )
        for page in pages
    )
    columns = (
        "page",
        "command",
        "figures met",
        "not cleared",
        "without interval",
        "short",
        "not run",
    )
    return Table("Pages", columns, rows)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
