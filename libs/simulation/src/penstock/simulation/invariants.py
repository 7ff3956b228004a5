"""What must hold after every simulated run, whatever failed.

Each check yields violations: the invariant's name, and what was seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.api.router.v1 import router_pb2
from penstock.simulation.callers import JOB_TENANT, MAX_TOKENS, Ended, Told
from penstock.simulation.scripted_instance import Computations, tokens_of
from penstock.simulation.store_model import StoreModel
from penstock.simulation.store_values import Stream

SLACK_S = 0.05
"""How long after its deadline a call may end."""
CLEAR = frozenset(
    (
        "OK",
        "left",
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "ABORTED",
        "CANCELLED",
    )
)
"""Ends of calls that say what to do; INTERNAL and UNKNOWN do not."""


@dataclass(frozen=True)
class Violation:
    """One invariant that did not hold."""

    invariant: str
    seen: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.seen}"


@dataclass(frozen=True)
class Booked:
    """What the ledger says of one budget: tokens committed, held, and charged for holds that nobody
    has settled; and calls that were committed twice, which only tries of a job may be.
    """

    committed: int
    held: int
    expired: int
    double_commits: int


def booked(ledger: StoreModel, rule: str) -> Booked:
    """What stands under a rule's counters."""
    committed = held = expired = doubles = 0
    for key in ledger.all_keys():
        if f"c:{rule}:" in key:
            row = ledger.peek(key)
            committed, held = committed + int(row["c"]), held + int(row["h"])
        if key.endswith("ledger") and isinstance(stream := ledger.peek(key), Stream):
            commits: dict[str, int] = defaultdict(int)
            for fields in stream.entries.values():
                entry = dict(zip(fields[::2], fields[1::2], strict=True))
                lines = [line for line in entry["d"].split("\n") if f"c:{rule}:" in line]
                if not lines:
                    continue
                commits[entry["id"]] += entry["op"] == "commit"
                if entry["op"] == "expire":
                    expired += sum(int(line.split(" ")[-2]) for line in lines)
            doubles += sum(count > 1 for count in commits.values())
    return Booked(committed, held, expired, doubles)


def check_calls(calls: Iterable[Ended]) -> Iterator[Violation]:
    """Every call ends in time, and says clearly how."""
    for call in calls:
        if call.took_s > call.given_s + SLACK_S:
            yield Violation("stuck call", f"{call.took_s:.3f} s of {call.given_s:g} s: {call}")
        if call.status not in CLEAR:
            yield Violation("unclear status", str(call))


def check_answers(calls: Iterable[Ended], computations: Computations) -> Iterator[Violation]:
    """An answer is of the caller's own text and tenant, and none that may not be kept is given
    again.
    """
    for call in (one for one in calls if one.status == "OK"):
        computed = computations.by_number.get(call.number)
        if computed is None or not call.has_own_text or computed.text != call.text:
            yield Violation("wrong answer", str(call))
        elif computed.organisation != call.tenant:
            yield Violation("wrong tenant", f"{computed.organisation}'s answer: {call}")
        elif call.is_kept and not computed.may_be_kept:
            yield Violation("kept failure", str(call))


def check_money(
    told: Told, books: Mapping[str, Booked], limits: Mapping[str, int]
) -> Iterator[Violation]:
    """What was answered is booked, no call is booked twice, and no limit is passed."""
    for tenant, book in books.items():
        answered = sum(call.tokens for call in told.calls if call.tenant == tenant)
        asked = sum(_most_tokens(call) for call in told.calls if call.tenant == tenant)
        if tenant == JOB_TENANT:
            asked = sum(map(tokens_of, told.job_texts))
        if book.committed < answered:
            yield Violation("lost charge", f"{tenant}: {book.committed} booked of {answered}")
        if book.committed > asked + book.expired or (book.double_commits and tenant != JOB_TENANT):
            yield Violation("double charge", f"{tenant}: {book}, all calls come to {asked}")
        if book.committed > limits[tenant]:
            yield Violation("overshoot", f"{tenant}: {book} of {limits[tenant]}")
        if book.held:
            yield Violation("hold left", f"{tenant}: {book}")


def _most_tokens(call: Ended) -> int:
    """The most that a call may be charged; what a call that ended early has used is estimated."""
    return tokens_of(call.text) if call.status == "OK" else tokens_of(call.text) + MAX_TOKENS


def check_jobs(told: Told, ledger: StoreModel) -> Iterator[Violation]:
    """Every accepted job has ended, once and well."""
    for token, job_id in told.jobs.items():
        row = ledger.peek(f"penstock:job:{job_id}")
        if row is None:
            yield Violation("lost job", f"{token} {job_id} is not there")
        elif int(row["state"]) != router_pb2.JOB_STATE_SUCCEEDED or row.get("ends") != "1":
            shown = {name: row.get(name) for name in ("state", "attempts", "ends", "outcome")}
            yield Violation("lost job", f"{token} {job_id}: {shown}")
    if len(set(told.jobs.values())) != len(told.jobs):
        yield Violation("lost job", f"two tokens share a job: {told.jobs}")
