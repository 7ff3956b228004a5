"""Security: threats that tests try, what mutual TLS costs, certificates replaced under load, keys
revoked, the store's primary killed, and a cluster of stores.

Every test that is marked with `threat` is run; a threat is open where one of its tests fails.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.bench.harness.intervals import bootstrap, medians, of_share
from penstock.bench.harness.marked_tests import run_marked
from penstock.bench.harness.options import Options
from penstock.bench.harness.parts import Measure, Part, run_parts
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.security import cluster, failover, reload, revocation, tls_cpu
from penstock.service.program import loop_factory

NEEDS_MODELS = True
BOUNDS = {
    "threats_tested": Bound(">=", 40),
    "threats_open": Bound("<=", 0),
    "tls_cpu_ratio": Bound("<=", 1.15),
    "cert_reload_errors": Bound("<=", 0),
    "revocation_ms": Bound("<=", 1_000),
    "failover_lost": Bound("<=", 0),
    "cluster_crossslot_errors": Bound("<=", 0),
}
FAILOVERS = 3
TESTS, QUICK_TESTS = Path("tests"), Path("tests/router/identity")


def run(options: Options) -> Result:
    """Measure."""
    return run_parts("security", PARTS, options, BOUNDS, {})


def _threats(quick: bool) -> Part:
    found = run_marked("threat", QUICK_TESTS if quick else TESTS)
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
    table = Table("Threats", ("threat", "outcome"), rows)
    return Part(figures, tables=(table,), exact=frozenset(figures))


def _tls_cpu(quick: bool) -> Part:
    count, seconds = (2, 0.5) if quick else (8, 3.0)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        turns = runner.run(tls_cpu.measure(count, seconds))
    rounds = [
        {
            "tls_cpu_ratio": turn.ratio,
            "plain_cpu_ms": turn.plain_cpu_ms,
            "tls_cpu_ms": turn.tls_cpu_ms,
        }
        for turn in turns
    ]
    context = {"tls": "ECDSA P-256 certificates, TLS 1.3, as gRPC chooses", "callers": 64}
    columns = ("CPU a call, ms", "with mutual TLS, ms", "ratio")
    return Part(
        medians(rounds),
        context,
        (Table("CPU of a call", columns, tuple(turns)),),
        bootstrap(rounds, medians, "rounds"),
    )


def _reload(quick: bool) -> Part:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        counted = runner.run(reload.measure(3.0 if quick else 60.0))
    figures = {
        "cert_reload_errors": counted.errors,
        "cert_reload_error_share": counted.errors / counted.calls,
        "cert_reload_calls": counted.calls,
        "certificates_replaced": counted.replaced,
        "connections_meanwhile": counted.connections,
    }
    share = of_share(counted.errors, counted.calls, "calls")
    exact = frozenset(figures) - {"cert_reload_error_share"}
    return Part(figures, intervals={"cert_reload_error_share": share}, exact=exact)


def _revocation(quick: bool) -> Part:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        took_ms = runner.run(revocation.measure(Path(folder), 3 if quick else 20))
    return Part(
        _revocation_figures(took_ms),
        {"keys_revoked": len(took_ms)},
        intervals=bootstrap(took_ms, _revocation_figures, "keys"),
    )


def _revocation_figures(took_ms: Sequence[float]) -> dict[str, float]:
    """The slowest, which is judged, and their mean."""
    return {"revocation_ms": max(took_ms), "revocation_mean_ms": statistics.fmean(took_ms)}


def _failover(quick: bool) -> Part:
    losses = []
    for seed in range(1 if quick else FAILOVERS):
        with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
            losses.append(runner.run(failover.measure(Path(folder), seed)))
    lost, answered = sum(loss.lost for loss in losses), sum(loss.answered for loss in losses)
    figures = {
        "failover_lost": lost,
        "failover_lost_share": lost / answered,
        "failover_settlements": answered,
    }
    share = of_share(lost, answered, "settlements")
    exact = frozenset({"failover_lost", "failover_settlements"})
    context = {"failovers": len(losses)}
    return Part(figures, context, intervals={"failover_lost_share": share}, exact=exact)


def _cluster(_quick: bool) -> Part:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        errors = runner.run(cluster.measure(Path(folder)))
    return Part({"cluster_crossslot_errors": errors}, exact=frozenset({"cluster_crossslot_errors"}))


PARTS: Mapping[str, Measure] = {
    "threats": _threats,
    "tls-cpu": _tls_cpu,
    "reload": _reload,
    "revocation": _revocation,
    "failover": _failover,
    "cluster": _cluster,
}
