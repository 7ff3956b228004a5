"""The demo's requests are what the README says they are."""

from __future__ import annotations

from collections import Counter

from penstock.stack.workload import AGENTS, agent_requests, labelled_examples


def test_four_hundred_different_requests_of_four_tenants() -> None:
    all_requests = list(agent_requests())
    assert len(all_requests) == 400
    assert len({request.text for request in all_requests}) == 400
    assert set(Counter(request.tenant for request in all_requests).values()) == {100}


def test_every_priority_and_both_tasks_occur() -> None:
    assert {request.priority for request in agent_requests()} == {
        "low",
        "normal",
        "high",
        "critical",
    }
    assert {request.task for request in agent_requests()} == {"embed", "classify"}


def test_every_tenant_can_sort_its_texts() -> None:
    assert all(
        len({label for label, _ in labelled_examples(agent.tenant)}) >= 5 for agent in AGENTS
    )
