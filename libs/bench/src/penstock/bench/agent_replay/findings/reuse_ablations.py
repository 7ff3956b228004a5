"""Each technique of reuse alone, and all but it: which requests would not have been sent. Pure.

Computed from two plays of the same requests: when each came and how long it took directly says
which equal ones were answered or in flight by then, and Penstock's own decisions say which were
answered by like ones. These were made beside the other techniques, so that a semantic cache alone,
which would have to decide on equal requests too, saves at least so much.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from penstock.bench.agent_replay.players.ablations import Ablation
from penstock.bench.agent_replay.players.plays import Play
from penstock.bench.agent_replay.traffic.recordings import RecordedRun

SEMANTIC = "semantic_hit"


class Request(NamedTuple):
    """A request of one call.

    Attributes:
        content: equal for equal requests.
        may_keep: whether its answer may be kept: not where it calls tools.
        came_s: when it came.
        took_s: until its answer, where it is sent.
        is_alike: Penstock answered it by a like one.
    """

    content: str
    may_keep: bool
    came_s: float
    took_s: float
    is_alike: bool


@dataclass(frozen=True)
class Reuse:
    """What is switched on."""

    exact: bool = False
    coalescing: bool = False
    semantic: bool = False


TECHNIQUES: Mapping[str, tuple[Reuse, Reuse]] = {
    "exact cache": (Reuse(exact=True), Reuse(coalescing=True, semantic=True)),
    "coalescing": (Reuse(coalescing=True), Reuse(exact=True, semantic=True)),
    "semantic cache": (Reuse(semantic=True), Reuse(exact=True, coalescing=True)),
}
ALL = Reuse(exact=True, coalescing=True, semantic=True)


def share_saved(requests: list[Request], on: Reuse) -> float:
    """The share of requests that need not be sent."""
    ends_s: dict[str, list[float]] = defaultdict(list)
    saved = 0
    for request in sorted(requests, key=lambda each: each.came_s):
        if _saves(request, ends_s[request.content], on):
            saved += 1
        else:
            ends_s[request.content].append(request.came_s + request.took_s)
    return saved / len(requests)


def _saves(request: Request, ends_s: Sequence[float], on: Reuse) -> bool:
    """Whether a request need not be sent, where equal ones were and are answered at these times."""
    is_answered = any(end_s <= request.came_s for end_s in ends_s)
    is_in_flight = any(end_s > request.came_s for end_s in ends_s)
    is_equal = (on.exact and is_answered) or (on.coalescing and is_in_flight)
    return (request.may_keep and is_equal) or (on.semantic and request.is_alike)


def reuse_ablation(direct: Play, through: Play) -> Ablation:
    """What each technique saves; under `all of them`, what they save together, and none."""
    requests = _requests(direct, through)
    found = {
        name: (share_saved(requests, alone), share_saved(requests, without))
        for name, (alone, without) in TECHNIQUES.items()
    }
    return found | {"all of them": (share_saved(requests, ALL), 0.0)}


def _requests(direct: Play, through: Play) -> list[Request]:
    runs = {run.name: run for run in direct.workload.runs}
    alike = {each.run for each in through.answered if each.reused == SEMANTIC}
    return [
        Request(
            _content(runs[each.run]),
            not runs[each.run].tools,
            each.sent_s,
            each.latency_ms / 1e3,
            each.run in alike,
        )
        for each in direct.answered
    ]


def _content(run: RecordedRun) -> str:
    return json.dumps([run.messages[:-1], dict(run.settings)], sort_keys=True)
