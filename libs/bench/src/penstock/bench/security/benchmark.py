"""Security: threats that tests try, what mutual TLS costs, and certificates replaced under load.

Every test that is marked with `threat` is run; a threat is open where one of its tests fails.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from penstock.bench.harness.marked_tests import run_marked
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Number, Result, Table
from penstock.bench.security import reload, tls_cpu
from penstock.service.program import loop_factory

BOUNDS = {
    "threats_tested": Bound(">=", 40),
    "threats_open": Bound("<=", 0),
    "tls_cpu_ratio": Bound("<=", 1.15),
    "cert_reload_errors": Bound("<=", 0),
}


@dataclass(frozen=True)
class Part:
    """What one part of the benchmark measured."""

    figures: Mapping[str, Number]
    context: Mapping[str, object] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()


def run(options: Options) -> Result:
    """Measure."""
    figures: dict[str, Number] = {}
    context: dict[str, object] = {}
    tables: tuple[Table, ...] = ()
    for name in (options.part,) if options.part else PARTS:
        say(f"security: {name}")
        part = PARTS[name](options.quick)
        figures |= part.figures
        context |= part.context
        tables += part.tables
    bounds = {name: bound for name, bound in BOUNDS.items() if name in figures}
    return Result(figures, bounds, context, tables)


def _threats(_quick: bool) -> Part:
    found = run_marked("threat")
    figures = {
        "threats_tested": len(found.passed) + len(found.failed),
        "threats_open": len(found.failed),
        "threat_tests": found.tests,
    }
    outcomes = (
        ("stopped", found.passed),
        ("open", found.failed),
        ("could not be tried here", found.skipped),
    )
    rows = tuple((threat, outcome) for outcome, threats in outcomes for threat in threats)
    return Part(figures, tables=(Table("Threats", ("threat", "outcome"), rows),))


def _tls_cpu(quick: bool) -> Part:
    rounds, seconds = (2, 0.5) if quick else (8, 3.0)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        turns = runner.run(tls_cpu.measure(rounds, seconds))
    figures = {
        "tls_cpu_ratio": statistics.median(turn.ratio for turn in turns),
        "plain_cpu_ms": statistics.median(turn.plain_cpu_ms for turn in turns),
        "tls_cpu_ms": statistics.median(turn.tls_cpu_ms for turn in turns),
    }
    context = {"tls": "ECDSA P-256 certificates, TLS 1.3, as gRPC chooses", "callers": 64}
    columns = ("CPU a call, ms", "with mutual TLS, ms", "ratio")
    return Part(figures, context, (Table("CPU of a call", columns, tuple(turns)),))


def _reload(quick: bool) -> Part:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        counted = runner.run(reload.measure(3.0 if quick else 60.0))
    figures = {
        "cert_reload_errors": counted.errors,
        "cert_reload_calls": counted.calls,
        "certificates_replaced": counted.replaced,
        "connections_meanwhile": counted.connections,
    }
    return Part(figures)


PARTS: Mapping[str, Callable[[bool], Part]] = {
    "threats": _threats,
    "tls-cpu": _tls_cpu,
    "reload": _reload,
}
