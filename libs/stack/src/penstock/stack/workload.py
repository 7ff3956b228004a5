"""The demo's 400 agent requests: four tenants, ten runs each, ten steps a run.

Texts and their order; nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Task = Literal["embed", "classify"]
Priority = Literal["low", "normal", "high", "critical"]


@dataclass(frozen=True)
class AgentRequest:
    """One call of an agent: its tenant, run, step, task, priority and text."""

    tenant: str
    run_id: str
    step: str
    task: Task
    priority: Priority
    text: str


@dataclass(frozen=True)
class Step:
    """A call that an agent makes in each of its runs; `{}` in `text` stands for the subject."""

    name: str
    task: Task
    priority: Priority
    text: str


@dataclass(frozen=True)
class Agent:
    """One tenant's agent.

    Attributes:
        subjects: what its runs are about, one run each.
        steps: the calls of each run, in order.
        labelled_examples: (label, text) pairs by which it classifies.
    """

    tenant: str
    subjects: tuple[str, ...]
    steps: tuple[Step, ...]
    labelled_examples: tuple[tuple[str, str], ...]


SUPPORT = Agent(
    "brightbank",
    (
        "my card was swallowed by the machine at the station on Friday night",
        "the exchange rate on my holiday payment in Lisbon looks wrong",
        "a transfer of 240 euros to my landlord has been pending for three days",
        "I was charged twice for the same taxi ride on 14 March",
        "the app asks me to verify my identity again although I did so last week",
        "I want to raise my contactless limit before I travel to Oslo",
        "somebody in another country tried to log in to my account",
        "my salary did not arrive although my employer sent it on Monday",
        "the virtual card I ordered still shows as inactive",
        "how do I close a savings pot that still holds twelve euros",
    ),
    (
        Step("triage", "classify", "high", "{}"),
        Step("recall-policy", "embed", "high", "bank policy that applies when a customer says: {}"),
        Step("find-similar", "embed", "normal", "earlier support tickets like this one: {}"),
        Step("sentiment", "classify", "normal", "The customer wrote, clearly annoyed: {}"),
        Step(
            "facts",
            "embed",
            "normal",
            "facts to look up in the account history before answering: {}",
        ),
        Step(
            "draft-check",
            "embed",
            "high",
            "We are sorry for the trouble. You told us that {}; here is what happens next.",
        ),
        Step("risk", "classify", "critical", "Decide whether this needs the fraud team: {}"),
        Step("next-action", "embed", "normal", "next step for the agent after reading: {}"),
        Step("tag", "classify", "low", "Archive tag for a closed ticket in which {}"),
        Step("quality", "embed", "low", "was the answer complete for a customer who said {}"),
    ),
    (
        ("card", "my debit card is lost or does not work in the shop"),
        ("transfer", "money I sent to another account has not arrived"),
        ("charge", "I see a payment or a fee that I do not recognise"),
        ("security", "someone else may have access to my account"),
        ("settings", "I want to change a limit or close a product"),
    ),
)

OPERATIONS = Agent(
    "nimbus-cloud",
    (
        "checkout latency rose from 180 ms to 2.4 s right after release 2024.11.3",
        "the payments database primary in zone b ran out of connections",
        "pods of the search service are evicted because of memory pressure",
        "certificate of api.example.com expires in 36 hours",
        "the nightly export stopped at 61 per cent with a broken pipe",
        "5 per cent of image uploads fail with status 413 since noon",
        "the message queue has 1.2 million unread events and grows",
        "two of nine cache nodes answer with a round trip above 40 ms",
        "disk usage of the log volume grows by 3 GB an hour",
        "the canary of the recommendation service reports twice the error rate",
    ),
    (
        Step("classify-alert", "classify", "critical", "{}"),
        Step("runbook", "embed", "critical", "runbook for the incident: {}"),
        Step("similar-incidents", "embed", "high", "past incidents where {}"),
        Step("changes", "embed", "high", "recent changes that could explain why {}"),
        Step("blast-radius", "classify", "high", "How wide is the damage when {}"),
        Step("hypothesis", "embed", "normal", "most likely cause given that {}"),
        Step("mitigation", "embed", "high", "fastest safe mitigation while {}"),
        Step(
            "status-page",
            "embed",
            "normal",
            "status page text for customers: we are looking into reports that {}",
        ),
        Step("owner", "classify", "normal", "Which team owns the system in which {}"),
        Step("postmortem", "embed", "low", "questions for the review of the incident in which {}"),
    ),
    (
        ("deploy", "errors began right after a new version was released"),
        ("capacity", "a resource such as memory, disk or connections is exhausted"),
        ("network", "requests between hosts are slow or are dropped"),
        ("data", "a batch job or a queue is behind or broken"),
        ("security", "a certificate, key or permission is wrong or expires"),
    ),
)

SHOP = Agent(
    "orchard-goods",
    (
        "waterproof hiking boots for wide feet under 150 euros",
        "a quiet blender that can crush ice for a small kitchen",
        "a gift for a seven-year-old who loves planets",
        "replacement filter for the coffee machine model KX-20",
        "linen curtains 140 by 245 centimetres in a warm grey",
        "a bicycle lamp that charges by USB and survives rain",
        "noise-cancelling headphones that fit over glasses",
        "vegan leather laptop bag for a 14 inch screen",
        "a tent for two people that weighs less than two kilograms",
        "non-slip mat for a round shower tray of 80 centimetres",
    ),
    (
        Step("understand", "classify", "high", "I am looking for {}"),
        Step("search", "embed", "high", "{}"),
        Step("expand", "embed", "normal", "other words a shopper uses for {}"),
        Step("attributes", "embed", "normal", "attributes that matter when choosing {}"),
        Step("compare", "embed", "normal", "compare the three best offers for {}"),
        Step("reviews", "embed", "low", "reviews that mention problems with {}"),
        Step("stock", "classify", "normal", "Is this a question about stock, price or advice: {}"),
        Step("bundle", "embed", "low", "what people also buy together with {}"),
        Step("answer", "embed", "high", "friendly recommendation for someone who wants {}"),
        Step("follow-up", "classify", "low", "After the purchase the customer asks again about {}"),
    ),
    (
        ("shoes", "boots, sandals and trainers for walking and running"),
        ("kitchen", "machines and tools for cooking and coffee"),
        ("home", "curtains, mats, lamps and furniture"),
        ("outdoor", "tents, bicycles and camping"),
        ("electronics", "headphones, laptops and their bags"),
        ("gifts", "toys and presents for children"),
    ),
)

LEGAL = Agent(
    "harbour-law",
    (
        "the tenant may end the lease with three months' notice to the end of a quarter",
        "the supplier pays a penalty of 0.5 per cent for each week of delay, at most 5 per cent",
        "both parties keep the terms of this agreement secret for five years",
        "disputes are settled by arbitration in Geneva in the English language",
        "the licence covers 250 named users and may not be passed to affiliates",
        "the buyer accepts the goods within ten working days or is deemed to have done so",
        "personal data are deleted 30 days after the end of the contract",
        "the consultant assigns all rights in the work product upon payment",
        "neither party is liable for indirect damage except for gross negligence",
        "prices rise each January by the consumer price index, at least 1 per cent",
    ),
    (
        Step("clause-type", "classify", "normal", "{}"),
        Step("precedents", "embed", "normal", "earlier contracts with a clause such as: {}"),
        Step("risk", "classify", "high", "Assess the risk to our client when {}"),
        Step("statutes", "embed", "normal", "statutes that limit a clause under which {}"),
        Step("plain-words", "embed", "low", "in plain words: {}"),
        Step("counter", "embed", "normal", "a counter-proposal to the clause that {}"),
        Step("deadline", "classify", "high", "Does this clause set a deadline: {}"),
        Step("compare", "embed", "low", "differences between our standard and the text that {}"),
        Step("questions", "embed", "low", "questions for the client about the clause that {}"),
        Step("summary", "embed", "normal", "one-line summary for the file: {}"),
    ),
    (
        ("termination", "how and when the contract may be ended"),
        ("liability", "who pays for damage and how much"),
        ("payment", "prices, penalties and when they are due"),
        ("confidentiality", "secrets and personal data"),
        ("rights", "licences, ownership and use"),
    ),
)

AGENTS = (SUPPORT, OPERATIONS, SHOP, LEGAL)


def agent_requests() -> Iterator[AgentRequest]:
    """All 400 requests in order, the runs of the four tenants interleaved."""
    for run in range(10):
        for position in range(10):
            for agent in AGENTS:
                step = agent.steps[position]
                run_id = f"{agent.tenant}-run-{run + 1:02d}"
                text = step.text.format(agent.subjects[run])
                yield AgentRequest(agent.tenant, run_id, step.name, step.task, step.priority, text)


def labelled_examples(tenant: str) -> tuple[tuple[str, str], ...]:
    """The (label, text) pairs by which a tenant's agent classifies."""
    return next(agent.labelled_examples for agent in AGENTS if agent.tenant == tenant)
