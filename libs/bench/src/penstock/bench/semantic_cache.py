"""The semantic cache: calls saved and wrong answers served at two error bounds, cold start, against the best constant threshold; traps.

Banking77 and CLINC150 (with its out-of-scope queries, each an answer of its own), five shuffles that no setting was chosen on. Same
intent counts as same answer; a hit gives no label, a call labels its request, audits count as calls. The decision is the serving code's
own; only Redis and the hop are left out.
"""

from __future__ import annotations

import csv
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.bench.options import Options
from penstock.bench.report import Bound, Result, Table
from penstock.bench.semantic_beside import beside
from penstock.bench.semantic_lookup import lookup
from penstock.bench.semantic_traps import pairs
from penstock.cache.classes import Floats
from penstock.cache.index import VectorIndex
from penstock.cache.semantic import NEIGHBOURS, Neighbour, SemanticScope
from penstock.onnx.encoder import TextModel

SEEDS = (20, 21, 22, 23, 24)
WINDOW = 1_000
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


@dataclass
class Corpus:
    """Texts, their answers and their unit vectors."""

    texts: list[str]
    answers: list[str]
    vectors: Floats


@dataclass
class Outcome:
    """What one stream came to."""

    requests: int
    hits: list[tuple[int, bool]]
    decision_s: float
    scope: SemanticScope
    index: VectorIndex
    kept: list[tuple[int, str]]

    @property
    def cut(self) -> float:
        return len(self.hits) / self.requests

    @property
    def precision(self) -> float:
        return sum(right for _, right in self.hits) / max(1, len(self.hits))

    def worst(self, bound: float) -> float:
        """Largest error of disjoint windows of hits, in bounds."""
        rights = [right for _, right in self.hits]
        spans = range(0, len(rights) - WINDOW + 1, WINDOW)
        return max((1 - sum(rights[at : at + WINDOW]) / WINDOW for at in spans), default=0.0) / bound

    def early(self) -> float:
        """Hits in the first thousand requests, as a share."""
        return sum(number < 1_000 for number, _ in self.hits) / 1_000


def run(options: Options) -> Result:
    model = TextModel.load(_model())
    banking, clinc = _banking(options, model), _clinc(options, model)
    seeds = SEEDS[:1] if options.quick else SEEDS
    rows: list[tuple[str | float, ...]] = []
    found = {
        (name, bound): [stream(corpus, bound, seed) for seed in seeds]
        for name, corpus in (("banking77", banking), ("clinc150", clinc))
        for bound in (0.03, 0.01)
    }
    for (name, bound), outcomes in found.items():
        rows += [
            (name, bound, seed, one.cut, one.precision, one.early(), one.worst(bound))
            for seed, one in zip(seeds, outcomes, strict=True)
        ]
    figures = _stream_figures(found)
    static, sweep = _static(banking, seeds[:2], figures["hit_precision_03"])
    tables = [sweep]
    absent: tuple[str, ...] = ()
    figures["static_call_cut_same_precision"] = static
    figures["gain_vs_static"] = figures["call_cut_03"] / max(static, 1e-6)
    figures |= _variants(banking, options.quick)
    figures |= _traps(found["banking77", 0.01][0], model)
    figures |= _contextual(options)
    if not options.quick:
        figures |= _lookup(banking, clinc)
        peers, absent = _peers(banking, found["banking77", 0.03][0], sweep, figures["hit_precision_03"])
        tables.append(peers)
    columns = ("data", "bound", "shuffle", "cut", "precision", "hits in the first 1,000", "worst window ÷ bound")
    context = {
        "data": {name: options.source(name) for name in ("banking77", "clinc150", "contextual-queries")},
        "shuffles": list(seeds),
        "embedder": f"{model.card.name}, INT8",
        "traps": "rules in semantic_traps, after Banking77 at bound 0.01",
    }
    notes = (
        "Constants were chosen on other shuffles of the same queries: both data sets 0 to 14.",
        "The first thousand requests of CLINC150 are the weakest: calibration has seen few labels there.",
        f"Peers run over the first {BESIDE:,} requests of the first shuffle as their documentation sets them up.",
        "GPTCache keeps SQLite and FAISS, RedisVL a server of Redis's protocol with RediSearch.",
        "A peer's second threshold is the constant cosine that is as precise as our decision over whole streams, in hindsight.",
        "A million vectors are kept as bytes in inverted lists, up to 250,000 as a graph, up to 20,000 flat.",
        *absent,
    )
    return Result(figures, BOUNDS, context, (Table("Streams", columns, tuple(rows)), *tables), (), notes)


def _model() -> Path:
    """The newest revision of the default model in `PENSTOCK_HOME`."""
    folder = Path(os.environ.get("PENSTOCK_HOME", ".penstock")) / "models" / "all-MiniLM-L6-v2"
    return max(folder.glob("*"), key=lambda path: (len(path.name), path.name))


def stream(corpus: Corpus, bound: float, seed: int, zipf: float = 0.0, judge_errs: float = 0.0) -> Outcome:
    """One shuffled stream from a cold start. `zipf`: repeat by rank with this exponent; `judge_errs`: share of labels that are wrong."""
    rng, audit = random.Random(seed), random.Random(seed + 999)
    order = list(range(len(corpus.texts)))
    rng.shuffle(order)
    if zipf:
        weights = [1 / (rank + 1) ** zipf for rank in range(len(order))]
        order = rng.choices(order, weights, k=len(order))
    scope, index = SemanticScope(corpus.vectors.shape[1], bound), VectorIndex(corpus.vectors.shape[1])
    ids: dict[str, int] = {}
    kept: list[tuple[int, str]] = []
    exact: dict[str, int] = {}
    hits: list[tuple[int, bool]] = []
    spent = 0.0
    for number, at in enumerate(order):
        text, vector = corpus.texts[at], corpus.vectors[at]
        truth = ids.setdefault(corpus.answers[at], len(ids))
        if zipf and text in exact:
            hits.append((number, exact[text] == truth))
            continue
        near = [
            Neighbour(place, kept[place][0], value, kept[place][1]) for place, value in index.search(vector, NEIGHBOURS)
        ]
        began = time.perf_counter()
        verdict = scope.decide(vector, text, near, audit)
        if verdict.serve:
            hits.append((number, verdict.answer == truth))
        else:
            label = truth if audit.random() >= judge_errs else audit.randrange(len(ids))
            scope.learn(vector, text, label, verdict)
        spent += time.perf_counter() - began
        if not verdict.serve:
            index.add(len(kept), vector)
            kept.append((label, text))
            exact[text] = truth
    return Outcome(len(order), hits, spent, scope, index, kept)


def _stream_figures(found: dict[tuple[str, float], list[Outcome]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for (name, bound), outcomes in found.items():
        prefix, tail = ("clinc_" if name == "clinc150" else ""), f"{round(bound * 100):02d}"
        figures[f"{prefix}call_cut_{tail}"] = statistics.mean(one.cut for one in outcomes)
        figures[f"{prefix}{'precision' if prefix else 'hit_precision'}_{tail}"] = statistics.mean(
            one.precision for one in outcomes
        )
        if name == "banking77":
            figures[f"worst_window_error_ratio_{tail}"] = max(one.worst(bound) for one in outcomes)
            figures[f"errors_per_request_{tail}"] = statistics.mean(one.cut * (1 - one.precision) for one in outcomes)
    main = found["banking77", 0.03]
    figures["first_1000_hits"] = statistics.mean(one.early() for one in main)
    figures["decision_ms"] = statistics.median(one.decision_s / one.requests * 1e3 for one in main)
    return figures


def _static(corpus: Corpus, seeds: Sequence[int], precision: float) -> tuple[float, Table]:
    """The best constant threshold in hindsight that is as precise; the whole sweep as a table."""
    rows = []
    for threshold in np.arange(0.70, 0.985, 0.01):
        cuts, rights = [], []
        for seed in seeds:
            order = list(range(len(corpus.texts)))
            random.Random(seed).shuffle(order)
            cut, right = _constant(corpus, order, float(threshold))
            cuts.append(cut)
            rights.append(right)
        rows.append((round(float(threshold), 2), statistics.mean(cuts), statistics.mean(rights)))
    best = max((cut for _, cut, right in rows if right >= precision), default=0.0)
    return best, Table("Constant thresholds", ("cosine", "cut", "precision"), tuple(rows))


def _peers(corpus: Corpus, ours: Outcome, sweep: Table, precision: float) -> tuple[Table, tuple[str, ...]]:
    """Other caches over the first requests of the first shuffle, and our decision over the same ones."""
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


def _constant(corpus: Corpus, order: Sequence[int], threshold: float) -> tuple[float, float]:
    index, kept, hits = VectorIndex(corpus.vectors.shape[1]), list[str](), list[bool]()
    for at in order:
        near = index.search(corpus.vectors[at], 1)
        if near and near[0][1] >= threshold:
            hits.append(kept[near[0][0]] == corpus.answers[at])
        else:
            index.add(len(kept), corpus.vectors[at])
            kept.append(corpus.answers[at])
    return len(hits) / len(order), sum(hits) / max(1, len(hits))


def _variants(corpus: Corpus, quick: bool) -> dict[str, float]:
    """Repeated traffic, and a judge that errs."""
    if quick:
        return {}
    figures = {}
    for name, knobs in (("zipf", {"zipf": 0.9}), ("judge_5", {"judge_errs": 0.05}), ("judge_10", {"judge_errs": 0.10})):
        one = stream(corpus, 0.03, SEEDS[0], **knobs)
        figures[f"call_cut_03_{name}"], figures[f"hit_precision_03_{name}"] = one.cut, one.precision
    return figures


def _traps(warm: Outcome, model: TextModel) -> dict[str, float]:
    """Each pair's cached prompt alone beside a warm scope's entries: is the new one served with its answer?"""
    made = pairs()
    vectors = _embed(model, [text for pair in made for text in (pair.cached, pair.new)])
    scope, index, kept = warm.scope, warm.index, warm.kept
    served: dict[bool, list[bool]] = {True: [], False: []}
    missed_by_kind: dict[str, int] = {}
    answer = len(scope.classes.count)
    for number, pair in enumerate(made):
        cached, new = vectors[2 * number], vectors[2 * number + 1]
        scope.classes.grow(answer + number + 1)
        near = [
            Neighbour(place, kept[place][0], value, kept[place][1])
            for place, value in index.search(new, NEIGHBOURS - 1)
        ]
        near.append(Neighbour(len(kept), answer + number, float(cached @ new), pair.cached))
        near.sort(key=lambda one: -one.similarity)
        scope.classes.insert(cached, [], answer + number)
        verdict = scope.decide(new, pair.new, near, _Never())
        hit = verdict.serve and verdict.answer == answer + number
        served[pair.same].append(hit)
        if hit and not pair.same:
            missed_by_kind[pair.kind] = missed_by_kind.get(pair.kind, 0) + 1
    return {
        "trap_pairs": len(made),
        "trap_wrong": statistics.mean(served[False]),
        "trap_kept": statistics.mean(served[True]),
        **{f"trap_wrong_{kind}": float(count) for kind, count in missed_by_kind.items()},
    }


class _Never(random.Random):
    """Draws no audit."""

    def random(self) -> float:
        return 1.0


def _contextual(options: Options) -> dict[str, float]:
    """Follow-ups under another main query: their scopes differ, so that no similarity can make them hit. Counts equal scope keys."""
    from penstock.api.cache.v1 import cache_pb2
    from penstock.api.inference.v1 import inference_pb2
    from penstock.cache.scope import prompt_of

    turns = _turns(options)
    seen: dict[str, str] = {}
    wrong = 0
    for main, reply, follow in turns:
        task = inference_pb2.Task()
        for role, text in (("user", main), ("assistant", reply), ("user", follow)):
            task.generate.messages.add(role=role, content=text)
        prompt = prompt_of(b"k", "tenant", cache_pb2.Scope(model="m"), task, "e")
        assert prompt is not None
        wrong += seen.setdefault(prompt.scope_key, main + reply) != main + reply
    return {"contextual_wrong_hits": float(wrong), "contextual_pairs": float(len(turns))}


def _turns(options: Options) -> list[tuple[str, str, str]]:
    if options.data is None or options.source("contextual-queries") == "generated":
        return [(f"tell me of {place}", "gladly", "what is its capital") for place in ("France", "Spain", "Peru")]
    folder = options.data / "contextual-queries"
    files = [
        json.loads((folder / name).read_text()) for name in ("contextual_queries.json", "context2.json", "d1.json")
    ]
    fields = ("Main Query", "Main Query Response", "Follow-Up Query")
    return [(str(row[fields[0]]), str(row[fields[1]]), str(row[fields[2]])) for rows in files for row in rows]


def _lookup(*corpora: Corpus) -> dict[str, float]:
    """p99 of a search among perturbed real embeddings, and what it finds of the true nearest 32."""
    base = np.concatenate([corpus.vectors for corpus in corpora])
    p99, recall, _ = lookup(base, 100_000)
    p99_1m, recall_1m, built_s = lookup(base, 1_000_000)
    return {
        "lookup_p99_ms_100k": p99,
        "recall_at_32": recall,
        "lookup_p99_ms_1m": p99_1m,
        "recall_at_32_1m": recall_1m,
        "build_s_1m": built_s,
    }


def _embed(model: TextModel, texts: Sequence[str]) -> Floats:
    vectors = model.embed(texts)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _corpus(rows: Sequence[tuple[str, str]], model: TextModel, quick: bool) -> Corpus:
    kept = rows[:1_500] if quick else rows
    return Corpus([text for text, _ in kept], [answer for _, answer in kept], _embed(model, [text for text, _ in kept]))


def _banking(options: Options, model: TextModel) -> Corpus:
    if options.data is None or options.source("banking77") == "generated":
        return _corpus(_generated(), model, options.quick)
    rows = []
    for name in ("train.csv", "test.csv"):
        with (options.data / "banking77" / name).open(newline="") as file:
            rows += [(row["text"], row["category"]) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rows)
    return _corpus(rows, model, options.quick)


def _clinc(options: Options, model: TextModel) -> Corpus:
    if options.data is None or options.source("clinc150") == "generated":
        return _corpus(_generated(), model, options.quick)
    data = json.loads((options.data / "clinc150" / "data_full.json").read_text())
    rows = [
        (text, intent if intent != "oos" else f"out of scope {part} {number}")
        for part, items in data.items()
        for number, (text, intent) in enumerate(items)
    ]
    random.Random(0).shuffle(rows)
    return _corpus(rows, model, options.quick)


def _generated() -> list[tuple[str, str]]:
    """Requests of ten intents in ten ways."""
    things = ("card", "account", "loan", "password", "address", "statement", "limit", "fee", "branch", "refund")
    ways = (
        "where is my {}",
        "I need help with my {}",
        "change my {}",
        "what about the {}",
        "my {} is wrong",
        "tell me more about the {}",
    )
    tails = ("", " please", " today", " now", ", thanks")
    return [(way.format(thing) + tail, thing) for thing in things for way in ways for tail in tails] * 3
