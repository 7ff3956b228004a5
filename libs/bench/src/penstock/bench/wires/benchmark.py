"""The wires: what providers send, read whole or not at all.

Recorded answers of each kind, hand-written and, where checkouts are named by the variables
PENSTOCK_OPENAI_PYTHON and PENSTOCK_ANTHROPIC_SDK, those of the providers' own clients; each stream
is split at every position. Answers drawn at random are read whole and as streams that are split at
random. Streams are damaged in every way that a receiver can see: none may end in INTERNAL, and no
answer that differs may be one that a cache keeps; their counts add up over the log. Reported faults
of gateways are tests, which are run. The time to read a chunk of a stream, from bytes to an encoded
message, is a multiple of the time that its JSON alone takes.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.bench.harness.intervals import Interval, of_share
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.wires import campaign, cases, corpus, cpu, sdk_recordings

BOUNDS = {
    "cases": Bound(">=", 23),
    "cases_failed": Bound("<=", 0),
    "recordings": Bound(">=", 40),
    "recordings_failed": Bound("<=", 0),
    "sdk_recordings_failed": Bound("<=", 0),
    "split_positions_failed": Bound("<=", 0),
    "generated_failed": Bound("<=", 0),
    "mutated_streams": Bound(">=", 100_000),
    "mutated_internal": Bound("<=", 0),
    "mutated_kept": Bound("<=", 0),
    "stream_cpu_vs_json": Bound("<=", 12),
}
GENERATED, QUICK_GENERATED = 2_000, 50
MUTATED, QUICK_MUTATED = 25_000, 500
QUICK_EVERY = 40
"""A quick run splits at one position of so many."""
PARTS = ("corpus", "mutations", "cases", "cpu")
NEEDS_MODELS = True
"""For the marked tests."""


def run(options: Options) -> Result:
    """Measure."""
    figures: dict[str, float | int] = {}
    failures: list[str] = []
    counts: tuple[tuple[str | int, ...], ...] = ()
    intervals: dict[str, Interval] = {}
    if options.part in ("", "corpus"):
        say("wires: recordings, split at every position")
        figures |= _corpus(options, failures)
    if options.part in ("", "mutations"):
        say("wires: damaged streams")
        found = campaign.run(QUICK_MUTATED if options.quick else MUTATED, log=not options.quick)
        figures |= found.figures()
        failures += found.failures
        counts = found.rows()
    if options.part in ("", "cpu"):
        say("wires: time of a chunk")
        cpu_figures, intervals = cpu.figures(quick=options.quick)
        figures |= cpu_figures
    if options.part in ("", "cases"):
        say("wires: reported faults")
        figures |= cases.figures(failures, quick=options.quick)
    tables = (
        [Table("Damaged streams of this run, by kind", campaign.COLUMNS, counts)] if counts else []
    )
    if failures:
        rows = tuple((line,) for line in failures[:20])
        tables.append(Table("What failed", ("failure",), rows))
    bounds = {name: bound for name, bound in BOUNDS.items() if name in figures}
    if "mutated_streams" in figures:
        figures |= _damaged_share(figures)
        intervals["mutated_wrong_share"] = of_share(
            int(figures["mutated_internal"] + figures["mutated_kept"]),
            int(figures["mutated_streams"]),
            "damaged streams",
        )
    return Result(
        figures,
        bounds,
        {"data": "recordings, generated"},
        tuple(tables),
        intervals=intervals,
        exact=frozenset(figures) - frozenset(intervals),
    )


def _damaged_share(figures: Mapping[str, float]) -> dict[str, float]:
    """The share of damaged streams that ended in INTERNAL or were kept with a wrong answer."""
    wrong = figures["mutated_internal"] + figures["mutated_kept"]
    return {"mutated_wrong_share": wrong / figures["mutated_streams"]}


def _corpus(options: Options, failures: list[str]) -> dict[str, float | int]:
    every = QUICK_EVERY if options.quick else 1
    return {
        **corpus.recording_figures(failures),
        **corpus.split_figures(every, failures),
        **corpus.generated_figures(QUICK_GENERATED if options.quick else GENERATED, failures),
        **sdk_recordings.figures(failures),
    }
