"""What a warm scope must not mix up: traps that look alike, and follow-ups whose earlier turns
differ.
"""

from __future__ import annotations

import json
import random
import statistics

from penstock.api.cache.v1 import cache_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.bench.harness.options import Options
from penstock.bench.semantic_cache.data import embed
from penstock.bench.semantic_cache.stream import Outcome
from penstock.bench.semantic_cache.traps import pairs
from penstock.cache.semantic.decision import NEIGHBOURS, Neighbour
from penstock.cache.semantic.scope import prompt_of
from penstock.onnx.encoder import TextModel


def traps(warm: Outcome, model: TextModel) -> dict[str, float]:
    """Each pair's cached prompt alone beside a warm scope's entries: is the new one served with its
    answer?
    """
    made = pairs()
    vectors = embed(model, [text for pair in made for text in (pair.cached, pair.new)])
    scope, index, kept = warm.scope, warm.index, warm.kept
    assert scope is not None
    assert index is not None
    served: dict[bool, list[bool]] = {True: [], False: []}
    held_back: list[bool] = []
    missed_by_kind: dict[str, int] = {}
    answer = len(scope.classes.counts)
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
        decision = scope.decide(new, pair.new, near, _Never())
        hit = decision.serve and decision.answer_class == answer + number
        served[pair.same].append(hit)
        if pair.held_back and not pair.same:
            held_back.append(hit)
        if hit and not pair.same:
            missed_by_kind[pair.kind] = missed_by_kind.get(pair.kind, 0) + 1
    return {
        "trap_pairs": len(made),
        "trap_wrong": statistics.mean(served[False]),
        "trap_wrong_held_back": statistics.mean(held_back),
        "trap_kept": statistics.mean(served[True]),
        **{f"trap_wrong_{kind}": float(count) for kind, count in missed_by_kind.items()},
    }


class _Never(random.Random):
    """Draws no audit."""

    def random(self) -> float:
        return 1.0


def contextual(options: Options) -> dict[str, float]:
    """Follow-ups under another main query: their scopes differ, so that no similarity can make them
    hit. Counts equal scope keys.
    """
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
        return [
            (f"tell me of {place}", "gladly", "what is its capital")
            for place in ("France", "Spain", "Peru")
        ]
    folder = options.data / "contextual-queries"
    files = [
        json.loads((folder / name).read_text())
        for name in ("contextual_queries.json", "context2.json", "d1.json")
    ]
    fields = ("Main Query", "Main Query Response", "Follow-Up Query")
    return [
        (str(row[fields[0]]), str(row[fields[1]]), str(row[fields[2]]))
        for rows in files
        for row in rows
    ]
