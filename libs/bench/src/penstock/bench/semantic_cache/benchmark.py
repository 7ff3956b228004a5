"""The semantic cache: calls saved and wrong answers served at two error bounds; cold start; traps.

Against the best constant threshold, and against other caches. Banking77 and CLINC150 (with its
out-of-scope queries, each an answer of its own), six and ten shuffles on which no setting was
chosen, though of the same queries. These are closed answers: two requests with the same intent have
the same answer, and free text is exact only by default. A hit gives no label, a call labels its
request, audits count as calls. The decision is the serving code's own; only the store and the hop
are left out. Intervals are over intents, those of the worst window over shuffles.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Mapping

from penstock.bench.harness.data_sets import BANKING77
from penstock.bench.harness.intervals import bootstrap
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Number, Result, Table
from penstock.bench.semantic_cache import other_caches
from penstock.bench.semantic_cache.data import (
    CLINC150,
    Corpus,
    banking_corpus,
    clinc_corpus,
    embedder_folder,
)
from penstock.bench.semantic_cache.probes import (
    CONTEXTUAL_QUERIES,
    by_template,
    contextual_figures,
    probe_traps,
    trap_figures,
    wrong_by_kind,
)
from penstock.bench.semantic_cache.stream import (
    Job,
    StreamResult,
    run_stream,
    run_streams,
)
from penstock.bench.semantic_cache.streamed import streamed_figures
from penstock.bench.semantic_cache.timed import timed_figures
from penstock.onnx.encoder import TextModel

Results = Mapping[tuple[str, float], Mapping[int, StreamResult]]
"""Results by corpus and bound, and then by shuffle."""

NEEDS_MODELS = True
PARTS = ("timed",)
"""What `--part` can run alone: the figures that are times, and the stream that they need."""
LOOSE, STRICT = 0.03, 0.01
"""The two error bounds."""
SEEDS = (20, 21, 22, 23, 24, 25)
SEEDS_OF = {BANKING77: SEEDS, CLINC150: tuple(range(20, 30))}
"""CLINC150 is shuffled ten times: at 0.03 the cut of one shuffle has a standard deviation of 0.016,
against 0.006 on Banking77.
"""
VARIANTS = {"zipf": (0.9, 0.0), "judge_5": (0.0, 0.05), "judge_10": (0.0, 0.10)}
"""Repeated traffic and judges that err: Zipf exponent, share of wrong labels."""
VARIANT_STREAMS = (
    (BANKING77, LOOSE, 20),
    (BANKING77, LOOSE, 21),
    (BANKING77, STRICT, 20),
    (BANKING77, STRICT, 21),
    (CLINC150, LOOSE, 20),
)
"""Corpus, bound and shuffle of each variant."""
SEARCHED_CLINC_ROWS = 5_000
"""Embeddings of CLINC150, beside all of Banking77's, among which searches are timed."""
COMPARED_REQUESTS = 2_000
"""Requests of the comparison with other caches; one of these takes about 60 ms a request."""
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
    "Constants were chosen on other shuffles of the same queries: 0 to 14 of both data sets.",
    (
        "The first thousand requests of CLINC150 are the weakest: calibration has seen few labels "
        "there."
    ),
    (
        "`decision_ms` is the mean over the first shuffle of Banking77 at 0.03: features, "
        "probability, threshold, and learning with its refits."
    ),
    (
        "A judge that errs gives a random class. Its errors cannot be told from answers that vary, "
        "so hits stay below what is possible."
    ),
    (
        f"Peers run over the first {COMPARED_REQUESTS:,} requests of the first shuffle as their "
        "documentation sets them up."
    ),
    "GPTCache uses SQLite and FAISS, RedisVL a server of Redis's protocol with RediSearch.",
    (
        "A peer's second threshold is the constant cosine that is as precise as our decision over "
        "whole streams, in hindsight."
    ),
    (
        "A million vectors are kept as bytes in inverted lists, up to 250,000 as a graph, up to "
        "20,000 flat."
    ),
)


def run(options: Options) -> Result:
    """Measure."""
    model = TextModel.load(embedder_folder())
    banking = banking_corpus(options, model)
    first = run_stream(banking, Job(BANKING77, LOOSE, SEEDS[0]))
    if options.part:
        clinc = clinc_corpus(options, model, SEARCHED_CLINC_ROWS)
        timed = timed_figures(first, banking.vectors, clinc.vectors)
        bounds = {name: bound for name, bound in BOUNDS.items() if name in timed.figures}
        return Result(timed.figures, bounds, intervals=timed.intervals)
    corpora = {BANKING77: banking, CLINC150: clinc_corpus(options, model)}
    seeds = {name: of[:1] if options.quick else of for name, of in SEEDS_OF.items()}
    jobs = [
        Job(name, bound, seed)
        for name in corpora
        for bound in (LOOSE, STRICT)
        for seed in seeds[name]
    ]
    streams = run_streams(corpora, jobs if options.quick else [*jobs, *_variant_jobs()])
    results: dict[tuple[str, float], dict[int, StreamResult]] = defaultdict(dict)
    for job in jobs:
        results[job.corpus, job.bound][job.seed] = streams[job]
    streamed, sweep = streamed_figures(corpora, _by_corpus(results), seeds[BANKING77][:2])
    figures, intervals = dict(streamed.figures), dict(streamed.intervals)
    precision = figures["hit_precision_03"]
    tables = [_stream_table(results), sweep]
    notes: tuple[str, ...] = NOTES
    if not options.quick:
        clinc_vectors = corpora[CLINC150].vectors[:SEARCHED_CLINC_ROWS]
        timed = timed_figures(first, banking.vectors, clinc_vectors)
        figures |= timed.figures
        intervals |= timed.intervals
        variant_figures, variants = _variants(streams)
        figures |= variant_figures
        peers, absent = _peers(banking, first, sweep, precision)
        tables += [variants, peers]
        notes += absent
    strict = run_stream(banking, Job(BANKING77, STRICT, SEEDS[0]))
    probes = probe_traps(strict, model)
    templates = by_template(probes)
    figures |= {"trap_pairs": len(probes), **trap_figures(templates), **wrong_by_kind(probes)}
    figures |= contextual_figures(options)
    intervals |= bootstrap(templates, trap_figures, "templates")
    bounds = {name: bound for name, bound in BOUNDS.items() if name in figures}
    exact = frozenset({"contextual_wrong_hits"})
    context = {
        "data": {name: options.source(name) for name in (BANKING77, CLINC150, CONTEXTUAL_QUERIES)},
        "shuffles": {name: list(of) for name, of in seeds.items()},
        "embedder": f"{model.card.name}, INT8",
        "traps": "rules in traps.py, after Banking77 at bound 0.01",
    }
    return Result(figures, bounds, context, tuple(tables), (), notes, intervals, exact)


def _by_corpus(results: Results) -> dict[str, dict[float, Mapping[int, StreamResult]]]:
    return {
        name: {bound: each for (of, bound), each in results.items() if of == name}
        for name in SEEDS_OF
    }


def _variant_jobs() -> list[Job]:
    return [
        Job(corpus, bound, seed, zipf, judge_errors)
        for zipf, judge_errors in VARIANTS.values()
        for corpus, bound, seed in VARIANT_STREAMS
    ]


def _stream_table(results: Results) -> Table:
    columns = (
        "data",
        "bound",
        "shuffle",
        "cut",
        "precision",
        "hits in the first 1,000",
        "worst window ÷ bound",
    )
    rows: list[tuple[str | Number, ...]] = []
    for (corpus, bound), by_seed in results.items():
        for seed, result in by_seed.items():
            worst = result.worst_error_ratio(bound)
            early = result.early_hit_share()
            rows.append((corpus, bound, seed, result.cut, result.precision, early, worst))
    return Table("Streams", columns, tuple(rows))


def _peers(
    corpus: Corpus, ours: StreamResult, sweep: Table, precision: float
) -> tuple[Table, tuple[str, ...]]:
    """Other caches over the first requests of the first shuffle, and our decision over the same."""
    order = list(range(len(corpus.texts)))
    random.Random(SEEDS[0]).shuffle(order)
    order = order[:COMPARED_REQUESTS]
    as_precise = [float(row[0]) for row in sweep.rows if float(row[2]) >= precision]
    cosine = as_precise[0] if as_precise else 0.98
    rights = [hit.right for hit in ours.hits if hit.number < COMPARED_REQUESTS]
    cells = (len(rights) / len(order), sum(rights) / max(1, len(rights)))
    return other_caches.compare(
        [corpus.texts[position] for position in order],
        [corpus.answers[position] for position in order],
        corpus.vectors[order],
        cosine,
        ("Penstock", f"{LOOSE} wrong", *cells, ""),
    )


def _variants(streams: Mapping[Job, StreamResult]) -> tuple[dict[str, float], Table]:
    """Repeated traffic, and judges that err; the figures are Banking77's at 0.03."""
    figures: dict[str, float] = {}
    rows: list[tuple[str | Number, ...]] = []
    for name, (zipf, judge_errors) in VARIANTS.items():
        for corpus, bound in dict.fromkeys((stream[0], stream[1]) for stream in VARIANT_STREAMS):
            results = [
                streams[Job(corpus, bound, seed, zipf, judge_errors)]
                for of_corpus, of_bound, seed in VARIANT_STREAMS
                if (of_corpus, of_bound) == (corpus, bound)
            ]
            cut = statistics.mean(result.cut for result in results)
            precision = statistics.mean(result.precision for result in results)
            worst = max(result.worst_error_ratio(bound) for result in results)
            rows.append((name, corpus, bound, len(results), cut, precision, worst))
            if (corpus, bound) == (BANKING77, LOOSE):
                figures |= {f"call_cut_03_{name}": cut, f"hit_precision_03_{name}": precision}
    columns = ("traffic", "data", "bound", "shuffles", "cut", "precision", "worst window ÷ bound")
    return figures, Table("Repeated traffic, and judges that err", columns, tuple(rows))
