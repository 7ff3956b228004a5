"""Reading: how much a reader opens to follow one request, and what makes that longer.

**Journeys.** The services run as processes and note which functions they enter, in their own
folders and `libs/` (without generated code, benchmarks, stack and test kit). Every call is
recorded several times, warm and one at a time. A function is on a journey when every repeat
entered it before the answer was back at the caller: what background loops do now and then falls
out, and so does what every idle window of the same length enters. A file is opened when one of
its functions is on the journey, or when a class of its module was constructed there (generated
constructors have no file of their own, so the class's module is taken), or when it is a script
that a store ran. `function_lines` counts the lines of the functions entered, decorators and
docstrings included, each once; it varies by about one in a hundred between runs, for some of what
follows an answer begins before the caller has it. Nothing here is a time, for the recorder
makes the services slower.

- *Embed*: one warm miss through all processes of `make up`, its lease held. `later`: files opened
  only after the answer, within a quarter of a second.
- *GenerateStream*: the same through `inference-upstream` to a scripted upstream.
- *Lease*: what an `Embed` that needs a lease opens beyond one that holds it, in router, limiter,
  store.
- *Semantic hit*: from the look-up at the cache's port to its answer; what any call opens is left
  out.
- *Scaling decision*: from demand reported to the actuator told; what any call opens is left out.
- *Incident*: from spans received to an incident opened; what telemetry does without spans is left
  out.

**Sources.** Folders, lines and cycles are those of `services/` and `libs/` without generated code
(`__init__` and `__main__` are not counted as a folder's modules). Comparisons of kinds, decisions
on texts, purity and dead fields are looked for in what is no tool of tests and benchmarks, by
syntax and names: how stands at the head of each check in
`libs/bench/src/penstock/bench/reading/sources`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Result
from penstock.bench.reading import figures as made
from penstock.bench.reading.sources.tree import SourceTree, repository
from penstock.bench.reading.traces import incident, path, scaling, semantic_hit
from penstock.bench.reading.traces.journey import Journey
from penstock.bench.reading.traces.stacks import StackInputs

NEEDS_MODELS = True
PARTS = ("journeys", "sources")
REPEATS, QUICK_REPEATS = 12, 2


def run(options: Options) -> Result:
    tree = SourceTree(repository())
    repeats = QUICK_REPEATS if options.quick else REPEATS
    figures: made.Figures = {}
    tables: made.Tables = []
    notes: tuple[str, ...] = ()
    if options.part in ("", "journeys"):
        journeys, background = asyncio.run(_journeys(tree, repeats))
        notes = (
            f"Entered in every idle window and left out: {', '.join(background) or 'nothing'}.",
        )
        figures, tables = made.of_journeys(journeys)
    if options.part in ("", "sources"):
        say("sources")
        of_sources, more = made.of_sources(tree)
        figures, tables = figures | of_sources, tables + more
    bounds = {name: bound for name, bound in made.BOUNDS.items() if name in figures}
    context = {
        "repeats": repeats,
        "sources": len(tree.python),
        "data": "built in; the upstream is scripted",
    }
    shown = tuple(table for table in tables if table.rows)
    return Result(figures, bounds, context, shown, notes=notes, exact=frozenset(figures))


async def _journeys(tree: SourceTree, repeats: int) -> tuple[dict[str, Journey], Sequence[str]]:
    home = Path(os.environ.get("PENSTOCK_HOME", ".penstock"))
    inputs = StackInputs(home / "models", tree)
    say("calls through the whole stack")
    calls = await path.follow(inputs, repeats)
    say("a semantic hit")
    hit = await semantic_hit.follow(inputs, repeats)
    say("a scaling decision")
    decision = await scaling.follow(inputs)
    say("an incident")
    followed = {
        "embed": calls.embed,
        "stream": calls.stream,
        "lease": calls.lease,
        "semantic_hit": hit,
        "scaling": decision,
        "incident": await incident.follow(inputs),
    }
    return followed, calls.background
