"""The demo's requests are what the README says they are."""

from __future__ import annotations

from collections import Counter

from penstock.stack.workload import AGENTS, agent_requests, labelled_examples


def test_there_are_four_hundred_different_requests_a_hundred_for_each_tenant() -> None:
    requests = list(agent_requests())
    assert len({request.text for request in requests}) == len(requests) == 400
    assert set(Counter(request.tenant for request in requests).values()) == {100}


def test_every_priority_and_both_tasks_occur() -> None:
    requests = list(agent_requests())
    assert {request.priority for request in requests} == {"low", "normal", "high", "critical"}
    assert {request.task for request in requests} == {"embed", "classify"}


def test_every_tenant_has_examples_of_at_least_five_labels() -> None:
    for agent in AGENTS:
        assert len({label for label, _ in labelled_examples(agent.tenant)}) >= 5
