"""The fault replay itself: its requests, its faults and the calm between them."""

from __future__ import annotations

import itertools
import random

from penstock.bench.telemetry.replay import plan_faults
from penstock.simulation.requests import Fault, RequestSimulation, arrivals
from penstock.telemetry.spans.critical_path import critical_path


def test_requests_come_in_order_and_their_critical_paths_add_up() -> None:
    rng, before = random.Random(1), 0.0
    for end_s, seen in RequestSimulation([], rng).run(arrivals(None, rng, 0.05)):
        assert end_s >= before
        before = end_s
        sections = critical_path(seen.tree)
        assert sum(part.end_ns - part.start_ns for part in sections) == seen.tree.root.duration_ns


def test_a_slow_instance_is_slow_while_the_fault_lasts_and_only_it() -> None:
    def mean_s(faults: list[Fault]) -> dict[str, float]:
        rng = random.Random(2)
        spent: dict[str, list[float]] = {}
        for _, seen in RequestSimulation(faults, rng).run(arrivals(None, rng, 0.2)):
            for span in seen.tree.spans:
                if span.source.service == "inference":
                    spent.setdefault(span.source.instance[:11], []).append(span.duration_ns / 1e9)
        return {name: sum(rows) / len(rows) for name, rows in spent.items()}

    calm, ill = mean_s([]), mean_s([Fault("slow instance", 0.0, 720.0, 4.0)])
    assert ill["inference-0"] > 3 * calm["inference-0"]
    assert ill["inference-3"] < 1.3 * calm["inference-3"]


def test_faults_leave_calm_between_them_and_come_in_all_kinds() -> None:
    faults = plan_faults(random.Random(3), 4.0)
    assert {fault.kind for fault in faults} == {
        "slow instance",
        "error burst",
        "cache poisoning",
        "drift",
    }
    assert all(later.from_s - sooner.to_s >= 600.0 for sooner, later in itertools.pairwise(faults))
