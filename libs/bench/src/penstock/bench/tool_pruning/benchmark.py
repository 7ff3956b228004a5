"""Pruning of tools' schemas by the local encoder: tokens cut, and whether the right tool was kept.

A request of BFCL (`live_multiple`) comes with its own functions among those of other requests, 30,
60 or 120 in all; kept is what the shipped rule keeps at its default share of wrong omissions. Right
is the function of BFCL's own answer; one of the same purpose from another request counts as wrong.
Constants were chosen on one half of BFCL's sets of functions, and are fitted there anew in each
run; everything reported is from the other half. Intervals are over these sets, drawn whole; those
of `right_tool_kept` are Clopper and Pearson's over requests, where one counts as right only if its
tool was kept in all of its sets of tools. Requests for the same functions are alike:
`functions_without_miss` counts only the functions.

Conversations are tau-bench's, with 60 tools: what each prompt shares with the one before it is read
from a prefix cache at 0.1, the rest written at 1.25; tools stand before everything else, so a
change of tools writes the whole prompt again. Not measured: what a model answers with fewer tools.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from penstock.bench.harness.intervals import Interval, bootstrap, of_share
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.report import Bound, Number, Plot, Result, Table
from penstock.bench.tool_pruning.conversations import conversation_figures, played, sources
from penstock.bench.tool_pruning.data import BFCL, SEED, Request, halves, tool_set
from penstock.bench.tool_pruning.fitting import fitted
from penstock.bench.tool_pruning.ranked import (
    SIZES,
    Kept,
    RankedSet,
    Ranker,
    keep_by_number,
    keep_by_probability,
    ranked_sets,
)
from penstock.prompts.selection import Bm25Index, similarity_by
from penstock.prompts.tool_pruning import PruningPolicy
from penstock.prompts.tool_ranking import (
    SIMILARITY_WEIGHT,
    WORDS_WEIGHT,
    probabilities,
    text_to_embed,
    word_counts,
)
from penstock.router.prompts.passages import load_model
from tokenizers import Tokenizer

NEEDS_MODELS = True
ENCODER, DECODER = "all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"
DRAWS = 2
"""Sets of each size for each request."""
NUMBERS = (1, 2, 4, 6, 8, 12, 16, 24)
SHARES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
DEFAULT_SHARE = PruningPolicy().omitted_share
TIMED = 20
QUICK = 20
"""Requests of each half in a quick run, about."""
BOUNDS = {"schema_tokens_cut": Bound(">=", 0.8), "right_tool_kept": Bound(">=", 0.99)}


def run(options: Options) -> Result:
    """Measure."""
    models = home_folder() / "models"
    tokenizer = Tokenizer.from_file(str(models / DECODER / "1" / "tokenizer.json"))

    def count(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    ranker = Ranker(load_model(models / ENCODER / "1"), count)
    chosen_on, reported = halves(options)
    asked = [
        half[:: len(half) // QUICK] if options.quick else half for half in (chosen_on, reported)
    ]
    weights = fitted(list(ranked_sets(asked[0], chosen_on, 1, ranker)))
    sets = list(ranked_sets(asked[1], reported, DRAWS, ranker))
    kept = [keep_by_probability(ranked, DEFAULT_SHARE) for ranked in sets]
    tasks = played(options, reported, ranker, DEFAULT_SHARE)
    sums = _sums(kept)
    without_miss, groups = _without_miss(kept, "group")
    figures = {
        **_figures(sums),
        "functions_without_miss": without_miss / groups,
        **conversation_figures(tasks),
        **_times(models, reported),
    }
    intervals = bootstrap(sums, _figures, "sets of functions")
    intervals |= bootstrap(tasks, conversation_figures, "tasks")
    intervals |= _shares(kept)
    curves = _curves(sets)
    tables = (_table(curves), *_missed(sets, kept))
    context = {
        **_context(options),
        "requests": len(asked[1]),
        "requests on which constants were chosen": len(asked[0]),
        "sets of tools": len(sets),
        "weights fitted in this run": weights._asdict(),
    }
    return Result(figures, BOUNDS, context, tables, (_plot(curves),), intervals=intervals)


def _context(options: Options) -> dict[str, object]:
    return {
        "data": {BFCL: options.source(BFCL)} | sources(options),
        "omitted_share": DEFAULT_SHARE,
        "weights": {"similarity": SIMILARITY_WEIGHT, "words": WORDS_WEIGHT},
        "tokenizer": DECODER,
        "seed": SEED,
    }


Sums = Mapping[int, tuple[int, float, int]]
"""By size of the sets: how many there are, the sum of their cuts, how many kept the right tool."""


def _sums(kept: Sequence[Kept]) -> list[Sums]:
    """The sums of each group of requests, which are drawn whole."""
    groups: dict[str, list[Kept]] = {}
    for one in kept:
        groups.setdefault(one.group, []).append(one)
    return [
        {
            size: (len(of_size), sum(one.cut for one in of_size), sum(one.right for one in of_size))
            for size in SIZES
            if (of_size := [one for one in group if one.size == size])
        }
        for group in groups.values()
    ]


def _figures(groups: Sequence[Sums]) -> dict[str, float]:
    """The means over sets, of all sizes together and of each."""
    found = {}
    for suffix, sizes in (("", SIZES), *((f"_{size}", (size,)) for size in SIZES)):
        rows = [group[size] for group in groups for size in sizes if size in group]
        sets = max(1, sum(row[0] for row in rows))
        found[f"schema_tokens_cut{suffix}"] = sum(row[1] for row in rows) / sets
        found[f"right_tool_kept{suffix}"] = sum(row[2] for row in rows) / sets
    return found


def _shares(kept: Sequence[Kept]) -> dict[str, Interval]:
    """Intervals of the right tools kept. Drawn anew, sets of which none was missed tell nothing, so
    they are over requests: one is right where all of its sets are.
    """
    found = {"functions_without_miss": _of_share(kept, "group", "sets of functions")}
    for suffix, sizes in (("", SIZES), *((f"_{size}", (size,)) for size in SIZES)):
        of_size = [one for one in kept if one.size in sizes]
        found[f"right_tool_kept{suffix}"] = _of_share(of_size, "request", "requests")
    return found


def _of_share(kept: Sequence[Kept], by: Literal["group", "request"], of: str) -> Interval:
    return of_share(*_without_miss(kept, by), of)


def _without_miss(kept: Sequence[Kept], by: Literal["group", "request"]) -> tuple[int, int]:
    """How many groups or requests have no set that misses the right tool, and of how many."""
    names = {getattr(one, by) for one in kept}
    missed = {getattr(one, by) for one in kept if not one.right}
    return len(names) - len(missed), len(names)


def _times(models: Path, requests: Sequence[Request]) -> dict[str, float]:
    """CPU milliseconds of a choice among the most tools: where all of them are new to the router,
    and where only the request is.
    """
    embed = load_model(models / ENCODER / "1")
    embed(["warm up"])
    similarity = similarity_by(embed)
    tools = tool_set(requests[0], requests[1:], SIZES[-1], "timed")
    texts = [text_to_embed(tool) for tool in tools]

    def choose(question: str) -> float:
        began_s = time.process_time()
        words = Bm25Index([word_counts(tool) for tool in tools]).scores(question)
        probabilities(similarity(question, texts), words)
        return (time.process_time() - began_s) * 1e3

    first = choose(requests[0].text)
    asked = {request.text: None for request in requests[1 : TIMED + 1]}
    return {
        "cpu_ms_new_tools": first,
        "cpu_ms_new_request": statistics.median(map(choose, asked)),
    }


BY_PROBABILITY, BY_NUMBER = "fewest that reach a probability", "always the same number"
Curves = Mapping[str, Mapping[str, Sequence[Kept]]]
"""What is kept in each of two ways, by how much is."""


def _curves(sets: Sequence[RankedSet]) -> Curves:
    return {
        BY_PROBABILITY: {
            f"at most {share:g} left out": [keep_by_probability(one, share) for one in sets]
            for share in SHARES
        },
        BY_NUMBER: {
            f"always {number} tools": [keep_by_number(one, number) for one in sets]
            for number in NUMBERS
        },
    }


def _table(curves: Curves) -> Table:
    """What fewer or more tools cost and bring."""
    rows: list[tuple[str | Number, ...]] = []
    for curve in curves.values():
        rows += [(label, *_row(kept)) for label, kept in curve.items()]
    columns = [f"{what}, {size}" for size in SIZES for what in ("tools kept", "cut", "right")]
    return Table(
        "Tools kept, share of tokens cut, right tool kept", ("kept", *columns), tuple(rows)
    )


def _row(kept: Sequence[Kept]) -> list[float]:
    row = []
    for size in SIZES:
        of_size = [one for one in kept if one.size == size]
        tools = sum(one.tools for one in of_size) / max(1, len(of_size))
        row += [tools, _mean_cut(of_size), 1 - _mean_missed(of_size)]
    return row


def _mean_cut(kept: Sequence[Kept]) -> float:
    return sum(one.cut for one in kept) / max(1, len(kept))


def _mean_missed(kept: Sequence[Kept]) -> float:
    return sum(not one.right for one in kept) / max(1, len(kept))


def _missed(sets: Sequence[RankedSet], kept: Sequence[Kept]) -> list[Table]:
    """The requests whose tool was left out."""
    rows = {
        (ranked.request.text[:80].replace("\n", " ").replace("|", "/"), ranked.request.needed)
        for ranked, one in zip(sets, kept, strict=True)
        if not one.right
    }
    if not rows:
        return []
    return [Table("Requests whose tool was left out", ("request", "tool"), tuple(sorted(rows)))]


def _plot(curves: Curves) -> Plot:
    series = {
        name: (list(map(_mean_cut, curve.values())), list(map(_mean_missed, curve.values())))
        for name, curve in curves.items()
    }
    return Plot(
        "A number of tools that fits the request omits fewer right ones",
        "share of schema tokens cut",
        "share of requests whose tool is left out",
        series,
    )
