"""The fault suite: what campaigns of simulation, fuzzing, mutation, overload and soak have found,
summed over their logs, and how many of the 26 fault tests stand.

`tests_of_26`: faults of which a test passed and none failed, by the marker `fault`. The other
figures are sums over `docs/benchmarks/*.jsonl`, to which campaigns append:

- `simulated_seeds`, `violations`: `python -m penstock.simulation --log …` (virtual time)
- `fuzz_inputs`, `fuzz_crashes`: `python -m penstock.bench.fault_suite.fuzz`
- `mutants`, `mutants_alive`: `python -m penstock.bench.fault_suite.mutants`
- `goodput_at_3x`, `low_class_shed_first`, `recovery_s`:
  `python -m penstock.bench.fault_suite.overload`
- `soak_growth_mb`: `python -m penstock.bench.fault_suite.soak`

Of a seed, a mutant and a fuzzed target the last line counts, since what an earlier one found is
mended; of the soak the last run, whose interval is over parts of its second half. Overload is
measured several times, over which the figures are medians.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from penstock.bench.fault_suite.logs import FUZZ, MUTANTS, OVERLOAD, SIMULATION, SOAK
from penstock.bench.fault_suite.soak import growth_interval
from penstock.bench.harness.intervals import Interval, bootstrap, medians
from penstock.bench.harness.json_lines import rows
from penstock.bench.harness.marked_tests import run_marked
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Number, Result

NEEDS_MODELS = True
PARTS = ("tests", "logs")
MARK = "fault"
QUICK_TESTS = Path("tests/faults/test_wire.py")
BOUNDS = {
    "tests_of_26": Bound(">=", 26),
    "simulated_seeds": Bound(">=", 1_000),
    "violations": Bound("<=", 0),
    "fuzz_inputs": Bound(">=", 1_000_000),
    "fuzz_crashes": Bound("<=", 0),
    "goodput_at_3x": Bound(">=", 0.9),
    "low_class_shed_first": Bound(">=", 1),
    "recovery_s": Bound("<=", 5),
    "soak_growth_mb": Bound("<=", 10),
    "mutants": Bound(">=", 50),
    "mutants_alive": Bound("<=", 0),
}
COUNTS = frozenset(BOUNDS) - {"goodput_at_3x", "recovery_s", "soak_growth_mb"}
OVERLOADED = ("goodput_at_3x", "recovery_s", "memory_mb")
GROWING = ("mb", "descriptors", "threads")
Row = dict[str, Any]
Figures = dict[str, Number]


def run(options: Options) -> Result:
    """Run the tests of the faults, and sum the logs."""
    figures: Figures = {}
    overloaded = rows(OVERLOAD)
    for part in [options.part] if options.part else PARTS:
        match part:
            case "tests":
                figures |= _tests(QUICK_TESTS if options.quick else Path("tests"))
            case "logs":
                figures |= summed() | of_overload(overloaded)
            case _:
                raise ValueError(f"{part!r} is not one of {', '.join(PARTS)}")
    return Result(
        figures,
        BOUNDS,
        {"simulation": "virtual time", "fuzzing": "virtual time"},
        intervals={
            name: interval for name, interval in _intervals(overloaded).items() if name in figures
        },
        exact=COUNTS,
    )


def _intervals(overloaded: Sequence[Row]) -> dict[str, Interval]:
    """Those of the figures that are measured: under overload over runs, and of the last soak."""
    found = bootstrap(overloaded, of_overload, "runs")
    for row in rows(SOAK)[-1:]:
        found |= growth_interval(row["second_half_mb"]) if "second_half_mb" in row else {}
    return found


def _tests(folder: Path) -> Figures:
    cases = run_marked(MARK, folder)
    return {
        "tests_of_26": len(cases.passed),
        "faults_failed": len(cases.failed),
        "faults_skipped": len(cases.skipped),
    }


def summed() -> Figures:
    """The figures that stand in logs; those whose log is empty are left out."""
    seeds = _last(rows(SIMULATION), "seed")
    fuzzed = rows(FUZZ)
    mutants = _last(rows(MUTANTS), "mutant")
    figures: Figures = {
        "simulated_seeds": len(seeds),
        "violations": sum(bool(row["violations"]) for row in seeds),
        "fuzz_inputs": sum(row["inputs"] for row in fuzzed),
        "fuzz_crashes": sum(row["found"] for row in _last(fuzzed, "target")),
        "mutants": len(mutants),
        "mutants_alive": sum(row["alive"] for row in mutants),
    }
    for row in rows(SOAK)[-1:]:
        figures |= {f"soak_growth_{name}": row[f"growth_{name}"] for name in GROWING}
        figures |= {"soak_minutes": row["minutes"], "soak_errors": row["errors"]}
    return figures


def of_overload(measured: Sequence[Row]) -> Figures:
    """The figures of runs under overload: medians, and whether in each the lowest class went
    first.
    """
    if not measured:
        return {}
    return {
        **medians([{name: float(row[name]) for name in OVERLOADED} for row in measured]),
        "low_class_shed_first": min(int(row["low_class_shed_first"]) for row in measured),
    }


def _last(found: Iterable[Row], key: str) -> list[Row]:
    """The last line of each seed, target or mutant."""
    return list({row[key]: row for row in found}.values())
