"""The semantic cache: calls saved and wrong answers served at two error bounds, cold start, against
the best constant threshold; traps.

Banking77 and CLINC150 (with its out-of-scope queries, each an answer of its own), five and ten
shuffles that no setting was chosen on. Same intent counts as same answer; a hit gives no label, a
call labels its request, audits count as calls. The decision is the serving code's own; only Redis
and the hop are left out.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.semantic_cache.beside import beside
from penstock.bench.semantic_cache.data import Corpus, banking, clinc, embedder
from penstock.bench.semantic_cache.lookup import lookup
from penstock.bench.semantic_cache.probes import contextual, traps
from penstock.bench.semantic_cache.stream import Job, Outcome, constant, ordered, stream, streams
from penstock.cache.semantic.classes import Floats
from penstock.onnx.encoder import TextModel

Found = dict[tuple[str, float], dict[int, Outcome]]
"""What each shuffle of a data set gave at a bound."""

PARTS = ("timed",)
"""What `--part` may run alone: the figures that are times, and what they were taken with."""
SEEDS = (20, 21, 22, 23, 24)
SEEDS_OF = {"banking77": SEEDS, "clinc150": tuple(range(20, 30))}
"""CLINC150 is shuffled ten times: at 0.03 one shuffle's cut has a standard deviation of 0.016,
against 0.006 on Banking77.
"""
VARIED = tuple(
    (name, Job(data, bound, seed, zipf, errs))
    for name, zipf, errs in (("zipf", 0.9, 0.0), ("judge_5", 0.0, 0.05), ("judge_10", 0.0, 0.10))
    for data, bound, seed in (
        ("banking77", 0.03, 20),
        ("banking77", 0.03, 21),
        ("banking77", 0.01, 20),
        ("banking77", 0.01, 21),
        ("clinc150", 0.03, 20),
    )
)
"""Repeated traffic and a judge that errs."""
FROM_CLINC = 5_000
"""Embeddings of CLINC150 beside all of Banking77's among which a search is timed."""
BESIDE = 2_000
"""Requests of the comparison with other caches, of which one takes about 60 ms a request."""
BOUNDS = {
    "call_cut_03": Bound(">=", 0.72),
    "hit_precision_03": Bound(">=", 0.97),
    "call_cut_01": Bound(">=", 0.53),
    "hit_precision_01": Bound(">=", 0.99),
    "clinc_call_cut_03": Bound(">=", 0.80),
    "clinc_precision_03": Bound(">=", 0.97),
    "clinc_call_cut_01": Bound(">=", 0.70),
    "clinc_precision_01": Bound(">=", 0.99),
    "gain_vs_static": Bound(">=", 2),
    "first_1000_hits": Bound(">=", 0.20),
    "worst_window_error_ratio_03": Bound("<=", 2),
    "worst_window_error_ratio_01": Bound("<=", 2.5),
    "trap_wrong": Bound("<=", 0.01),
    "trap_kept": Bound(">=", 0.18),
    "decision_ms": Bound("<=", 0.5),
    "contextual_wrong_hits": Bound("<=", 0),
    "lookup_p99_ms_100k": Bound("<=", 5),
    "recall_at_32": Bound(">=", 0.95),
}

NOTES = (
    "Constants were chosen on other shuffles of the same queries: both data sets 0 to 14.",
    (
        "The first thousand requests of CLINC150 are the weakest: calibration has seen few "
        "labels there."
    ),
    (
        "`decision_ms` is the mean over the first shuffle of Banking77 at 0.03: features, "
        "probability, threshold and learning with its refits."
    ),
    (
        "A judge that errs gives a random class. What it gets wrong cannot be told from what "
        "varies, so that hits stay below what is possible."
    ),
    (
        f"Peers run over the first {BESIDE:,} requests of the first shuffle as their "
        "documentation sets them up."
    ),
    "GPTCache keeps SQLite and FAISS, RedisVL a server of Redis's protocol with RediSearch.",
    (
        "A peer's second threshold is the constant cosine that is as precise as our decision "
        "over whole streams, in hindsight."
    ),
    (
        "A million vectors are kept as bytes in inverted lists, up to 250,000 as a graph, up to "
        "20,000 flat."
    ),
)


def run(options: Options) -> Result:
    model = TextModel.load(embedder())
    bank = banking(options, model)
    if options.part:
        first = stream(bank, 0.03, SEEDS[0])
        return Result(
            _timed(first, bank.vectors, clinc(options, model, FROM_CLINC).vectors), BOUNDS
        )
    oos = clinc(options, model)
    first = stream(bank, 0.03, SEEDS[0])
    timed = {} if options.quick else _timed(first, bank.vectors, oos.vectors[:FROM_CLINC])
    seeds = {name: of[:1] if options.quick else of for name, of in SEEDS_OF.items()}
    corpora = {"banking77": bank, "clinc150": oos}
    jobs = [
        Job(name, bound, seed) for name in corpora for bound in (0.03, 0.01) for seed in seeds[name]
    ]
    varied = [] if options.quick else [job for _, job in VARIED]
    ran = streams(corpora, [*jobs, *varied])
    found: Found = defaultdict(dict)
    for job in jobs:
        found[job.corpus, job.bound][job.seed] = ran[job]
    figures = _stream_figures(found) | timed
    static, sweep = _static(bank, seeds["banking77"][:2], figures["hit_precision_03"])
    tables = [_streams(found), sweep]
    absent: tuple[str, ...] = ()
    figures["static_call_cut_same_precision"] = static
    figures["gain_vs_static"] = figures["call_cut_03"] / max(static, 1e-6)
    if not options.quick:
        more, table = _variants(ran)
        figures |= more
        peers, absent = _peers(bank, first, sweep, figures["hit_precision_03"])
        tables += [table, peers]
    figures |= traps(stream(bank, 0.01, SEEDS[0]), model)
    figures |= contextual(options)
    context = {
        "data": {
            name: options.source(name) for name in ("banking77", "clinc150", "contextual-queries")
        },
        "shuffles": {name: list(of) for name, of in seeds.items()},
        "embedder": f"{model.card.name}, INT8",
        "traps": "rules in semantic_traps, after Banking77 at bound 0.01",
    }
    return Result(figures, BOUNDS, context, tuple(tables), (), (*NOTES, *absent))


def _timed(first: Outcome, bank: Floats, clinc_: Floats) -> dict[str, float]:
    """The decision over the first shuffle, and p99 of a search among perturbed real embeddings with
    what it finds of the nearest 32.
    """
    base = np.concatenate([bank, clinc_])
    p99, recall, _ = lookup(base, 100_000)
    p99_1m, recall_1m, built_s = lookup(base, 1_000_000)
    return {
        "decision_ms": first.decision_s / first.requests * 1e3,
        "lookup_p99_ms_100k": p99,
        "recall_at_32": recall,
        "lookup_p99_ms_1m": p99_1m,
        "recall_at_32_1m": recall_1m,
        "build_s_1m": built_s,
    }


def _streams(found: Found) -> Table:
    columns = (
        "data",
        "bound",
        "shuffle",
        "cut",
        "precision",
        "hits in the first 1,000",
        "worst window ÷ bound",
    )
    rows = [
        (name, bound, seed, one.cut, one.precision, one.early(), one.worst(bound))
        for (name, bound), outcomes in found.items()
        for seed, one in outcomes.items()
    ]
    return Table("Streams", columns, tuple(rows))


def _stream_figures(found: Found) -> dict[str, float]:
    figures: dict[str, float] = {}
    for (name, bound), by_seed in found.items():
        outcomes = list(by_seed.values())
        prefix, tail = ("clinc_" if name == "clinc150" else ""), f"{round(bound * 100):02d}"
        figures[f"{prefix}call_cut_{tail}"] = statistics.mean(one.cut for one in outcomes)
        figures[f"{prefix}{'precision' if prefix else 'hit_precision'}_{tail}"] = statistics.mean(
            one.precision for one in outcomes
        )
        if name == "banking77":
            figures[f"worst_window_error_ratio_{tail}"] = max(one.worst(bound) for one in outcomes)
            figures[f"errors_per_request_{tail}"] = statistics.mean(
                one.cut * (1 - one.precision) for one in outcomes
            )
    main = found["banking77", 0.03]
    figures["first_1000_hits"] = statistics.mean(one.early() for one in main.values())
    return figures


def _static(corpus: Corpus, seeds: Sequence[int], precision: float) -> tuple[float, Table]:
    """The best constant threshold in hindsight that is as precise; the whole sweep as a table."""
    shuffled = [ordered(corpus, seed) for seed in seeds]
    rows = []
    for threshold in np.arange(0.70, 0.985, 0.01):
        outcomes = [constant(similar, answers, float(threshold)) for similar, answers in shuffled]
        cut, right = (statistics.mean(values) for values in zip(*outcomes, strict=True))
        rows.append((round(float(threshold), 2), cut, right))
    best = max((cut for _, cut, right in rows if right >= precision), default=0.0)
    return best, Table("Constant thresholds", ("cosine", "cut", "precision"), tuple(rows))


def _peers(
    corpus: Corpus, ours: Outcome, sweep: Table, precision: float
) -> tuple[Table, tuple[str, ...]]:
    """Other caches over the first requests of the first shuffle, and our decision over the same
    ones.
    """
    order = list(range(len(corpus.texts)))
    random.Random(SEEDS[0]).shuffle(order)
    order = order[:BESIDE]
    fitting = [float(row[0]) for row in sweep.rows if float(row[2]) >= precision]
    rights = [right for number, right in ours.hits if number < BESIDE]
    here: tuple[str | float, ...] = (
        "Penstock",
        "0.03 wrong",
        len(rights) / len(order),
        sum(rights) / max(1, len(rights)),
        "",
    )
    texts, answers = [corpus.texts[at] for at in order], [corpus.answers[at] for at in order]
    return beside(texts, answers, corpus.vectors[order], fitting[0] if fitting else 0.98, here)


def _variants(ran: dict[Job, Outcome]) -> tuple[dict[str, float], Table]:
    """Repeated traffic, and a judge that errs; the figures are Banking77's at 0.03."""
    figures, rows = dict[str, float](), []
    for name, data, bound in dict.fromkeys((name, job.corpus, job.bound) for name, job in VARIED):
        same = [job for said, job in VARIED if (said, job.corpus, job.bound) == (name, data, bound)]
        outcomes = [ran[job] for job in same]
        cut = statistics.mean(one.cut for one in outcomes)
        precision = statistics.mean(one.precision for one in outcomes)
        rows.append(
            (
                name,
                data,
                bound,
                len(outcomes),
                cut,
                precision,
                max(one.worst(bound) for one in outcomes),
            )
        )
        if (data, bound) == ("banking77", 0.03):
            figures |= {f"call_cut_03_{name}": cut, f"hit_precision_03_{name}": precision}
    columns = ("traffic", "data", "bound", "shuffles", "cut", "precision", "worst window ÷ bound")
    return figures, Table("Repeated traffic, and a judge that errs", columns, tuple(rows))
