"""What a warm scope must not confuse: traps that look alike, and follow-ups of different chats."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from penstock.api.cache.v1 import cache_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.bench.harness.intervals import Interval, bootstrap, of_share
from penstock.bench.harness.options import Options
from penstock.bench.semantic_cache.data import embed
from penstock.bench.semantic_cache.stream import StreamResult
from penstock.bench.semantic_cache.traps import Pair, generated_pairs
from penstock.cache.semantic.decision import NEIGHBOURS, Neighbour
from penstock.cache.semantic.scope import prompt_of
from penstock.onnx.encoder import TextModel

CONTEXTUAL_QUERIES = "contextual-queries"
CONTEXTUAL_FILES = ("contextual_queries.json", "context2.json", "d1.json")
CONTEXTUAL_FIELDS = ("Main Query", "Main Query Response", "Follow-Up Query")


class Probe(NamedTuple):
    """A pair of prompts, and whether the new one was served with the answer of the cached one."""

    pair: Pair
    served: bool


Template = Sequence[Probe]
"""The probes of one template."""


def trap_figures(templates: Sequence[Template]) -> dict[str, float]:
    """The shares served, over the probes of these templates."""
    probes = [probe for template in templates for probe in template]
    return {
        name: statistics.mean(probe.served for probe in each) if each else math.nan
        for name, each in _by_share(probes).items()
    }


def trap_intervals(templates: Sequence[Template]) -> dict[str, Interval]:
    """Intervals over templates. Where all probes of a share came to the same, that of the share of
    templates whose probes all do, which leaves out what else their number says.
    """
    found = bootstrap(templates, trap_figures, "templates")
    for name, share in trap_figures(templates).items():
        if share in (0.0, 1.0):
            count = sum(bool(_by_share(template)[name]) for template in templates)
            found[name] = of_share(round(share) * count, count, "templates")
    return found


def _by_share(probes: Sequence[Probe]) -> dict[str, list[Probe]]:
    """The probes that each share is over."""
    wrong = [probe for probe in probes if not probe.pair.same]
    return {
        "trap_wrong": wrong,
        "trap_wrong_held_back": [probe for probe in wrong if probe.pair.held_out],
        "trap_kept": [probe for probe in probes if probe.pair.same],
    }


def wrong_by_kind(probes: Sequence[Probe]) -> dict[str, float]:
    """The number of pairs of each kind that were served wrongly, where there was one."""
    wrong = Counter(probe.pair.kind for probe in probes if probe.served and not probe.pair.same)
    return {f"trap_wrong_{kind}": float(count) for kind, count in wrong.items()}


def by_template(probes: Sequence[Probe]) -> list[list[Probe]]:
    """The probes of each template together, for they are alike."""
    templates: dict[str, list[Probe]] = {}
    for probe in probes:
        templates.setdefault(probe.pair.template, []).append(probe)
    return list(templates.values())


def probe_traps(warm: StreamResult, model: TextModel) -> list[Probe]:
    """Whether the new prompt of each pair is served with the answer of the cached one.

    The cached prompt is alone among the entries of a warm scope.
    """
    pairs = generated_pairs()
    vectors = embed(model, [text for pair in pairs for text in (pair.cached, pair.new)])
    scope, index, stored = warm.scope, warm.index, warm.stored
    assert scope is not None and index is not None
    probes = []
    first_answer = len(scope.classes.counts)
    for number, pair in enumerate(pairs):
        cached, new = vectors[2 * number], vectors[2 * number + 1]
        answer = first_answer + number
        scope.classes.grow(answer + 1)
        near = [
            Neighbour(place, stored[place][0], similarity, stored[place][1])
            for place, similarity in index.search(new, NEIGHBOURS - 1)
        ]
        near.append(Neighbour(len(stored), answer, float(cached @ new), pair.cached))
        near.sort(key=lambda neighbour: -neighbour.similarity)
        scope.classes.insert(cached, [], answer)
        decision = scope.decide(new, pair.new, near, _NoAudits())
        probes.append(Probe(pair, decision.serve and decision.answer_class == answer))
    return probes


class _NoAudits(random.Random):
    """Chance with which no hit is audited."""

    def random(self) -> float:
        return 1.0


def contextual_figures(options: Options) -> dict[str, float]:
    """Equal scope keys among follow-ups of different conversations.

    A follow-up of another conversation has another scope, so no similarity can make it a hit.
    """
    conversations = _conversations(options)
    seen: dict[str, str] = {}
    wrong = 0
    for main, reply, follow_up in conversations:
        task = inference_pb2.Task()
        for role, text in (
            (inference_pb2.ROLE_USER, main),
            (inference_pb2.ROLE_ASSISTANT, reply),
            (inference_pb2.ROLE_USER, follow_up),
        ):
            task.generate.messages.add(role=role, content=text)
        prompt = prompt_of(b"k", "tenant", cache_pb2.Scope(model="m"), task, "e")
        assert prompt is not None
        wrong += seen.setdefault(prompt.scope_key, main + reply) != main + reply
    return {
        "contextual_wrong_hits": float(wrong),
        "contextual_pairs": float(len(conversations)),
    }


def _conversations(options: Options) -> list[tuple[str, str, str]]:
    """Main query, its reply, and a follow-up query."""
    folder = options.folder(CONTEXTUAL_QUERIES)
    if folder is None:
        return [
            (f"tell me of {place}", "gladly", "what is its capital")
            for place in ("France", "Spain", "Peru")
        ]
    files = [json.loads((folder / name).read_text()) for name in CONTEXTUAL_FILES]
    main, reply, follow_up = CONTEXTUAL_FIELDS
    return [
        (str(row[main]), str(row[reply]), str(row[follow_up])) for rows in files for row in rows
    ]
