"""Standards at the edges: OTLP in, Prometheus out, KServe v2, and the cases of public bug reports.

A real Prometheus scrapes generated pages, OpenTelemetry's own exporters send to us, content is
looked for in all that telemetry tells, and every test that is marked as a case is run.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.marked_tests import run_marked
from penstock.bench.harness.options import Options
from penstock.bench.harness.parts import Measure, Part, run_parts
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.report import Bound, Number, Result, Table
from penstock.bench.kserve.conformance import run_conformance
from penstock.bench.standards.background import seen_background
from penstock.bench.standards.content import FAMILIES, leaked_families
from penstock.bench.standards.cpu import cpu_us_per_span
from penstock.bench.standards.prometheus import program
from penstock.bench.standards.scrapes import Scraped, hostile_pages, scrape
from penstock.bench.standards.wires import arrived
from penstock.otel.attributes import GENAI_CONVENTIONS, SEMCONV_SCHEMA

NEEDS_MODELS = True
BOUNDS = {
    "cases": Bound(">=", 12),
    "cases_failed": Bound("<=", 0),
    "hostile_scrapes": Bound(">=", 1000),
    "scrapes_refused": Bound("<=", 0),
    "content_families": Bound(">=", 30),
    "content_leaks": Bound("<=", 0),
    "background_in_latency": Bound("<=", 0),
    "kserve_conformance_failed": Bound("<=", 0),
    "otlp_http_vs_grpc_lost": Bound("<=", 0),
    "telemetry_cpu_us_per_span": Bound("<=", 40),
}
PROMTOOL_PAGES = 100
TESTS, QUICK_TESTS = Path("tests"), Path("tests/standards")


def run(options: Options) -> Result:
    """Measure."""
    return run_parts(
        "standards",
        PARTS,
        options,
        BOUNDS,
        {
            "genai_conventions": GENAI_CONVENTIONS,
            "semconv_schema": SEMCONV_SCHEMA,
        },
    )


def _cases(quick: bool) -> Part:
    found = run_marked("standard_case", QUICK_TESTS if quick else TESTS)
    figures = {
        "cases": len(found.passed) + len(found.failed),
        "cases_failed": len(found.failed),
        "case_tests": found.tests,
    }
    rows = [
        (number, outcome)
        for outcome, numbers in (
            ("passed", found.passed),
            ("failed", found.failed),
            ("could not be run here", found.skipped),
        )
        for number in numbers
    ]
    table = Table("Cases", ("case", "outcome"), tuple(sorted(rows)))
    return Part(figures, tables=(table,), exact=frozenset(figures))


def _scrapes(quick: bool) -> Part:
    server = program("prometheus")
    if server is None:
        return Part({}, {"prometheus": "not installed; `make standards` does"})
    exports = 20 if quick else 1000
    found = asyncio.run(_scraped(server, exports))
    figures = {
        "hostile_scrapes": exports,
        "scrapes_refused": len(found.refused) + found.unparsed,
        "samples_lost": found.samples_lost,
    }
    context = {"prometheus": "Debian's package; each export as text and as OpenMetrics"}
    rows = tuple(sorted(found.refused.items()))
    table = _table("Refused pages", ("page", "error"), rows)
    return Part(figures, context, table, exact=frozenset(figures))


async def _scraped(server: Path, exports: int) -> Scraped:
    return await scrape(server, await hostile_pages(exports), PROMTOOL_PAGES)


def _content(_quick: bool) -> Part:
    with tempfile.TemporaryDirectory() as folder:
        leaked = asyncio.run(leaked_families(Path(folder)))
    figures = {"content_families": len(FAMILIES), "content_leaks": len(leaked)}
    table = _table("Leaks", ("family",), tuple((name,) for name in leaked))
    return Part(figures, tables=table, exact=frozenset(figures))


def _background(_quick: bool) -> Part:
    with tempfile.TemporaryDirectory() as folder:
        seen = asyncio.run(seen_background(Path(folder)))
    rows = tuple((place,) for place in seen)
    title = "Background work among requests"
    figures = {"background_in_latency": len(seen)}
    return Part(figures, tables=_table(title, ("where",), rows), exact=frozenset(figures))


def _kserve(_quick: bool) -> Part:
    found = asyncio.run(run_conformance(home_folder()))
    figures = {"kserve_cases": found.cases, "kserve_conformance_failed": len(found.failures)}
    rows = tuple(sorted(found.failures.items()))
    tables = _table("KServe v2", ("case", "failure"), rows)
    context = {"tritonclient": found.tritonclient}
    return Part(figures, context, tables, exact=frozenset(figures))


def _wires(quick: bool) -> Part:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(arrived(Path(folder), 200 if quick else 5000))
    rows = tuple((name, found.sent, held) for name, held in found.held.items())
    columns = ("exporter", "sent", "held")
    tables = _table("OpenTelemetry's own exporters", columns, rows)
    figures = {"otlp_http_vs_grpc_lost": found.lost}
    return Part(figures, tables=tables, exact=frozenset(figures))


def _cpu(quick: bool) -> Part:
    rounds = [
        {"telemetry_cpu_us_per_span": took_us}
        for took_us in asyncio.run(cpu_us_per_span(5 if quick else 40))
    ]
    return Part(medians(rounds), intervals=bootstrap(rounds, medians, "rounds"))


def _table(
    title: str, columns: tuple[str, ...], rows: tuple[tuple[str | Number, ...], ...]
) -> tuple[Table, ...]:
    """A table; none where it has no row."""
    return (Table(title, columns, rows),) if rows else ()


PARTS: Mapping[str, Measure] = {
    "cases": _cases,
    "scrapes": _scrapes,
    "content": _content,
    "background": _background,
    "kserve": _kserve,
    "wires": _wires,
    "cpu": _cpu,
}
"""By name; the argument says whether a short run is enough."""
