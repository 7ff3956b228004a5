"""Request checks and messages that the limiter's own service and the operators' share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from penstock.api.common.v1 import common_pb2
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.counters import Amounts, Counter, SpendPath
from penstock.limiter.holds import STORE_LOST_RETRY_MS
from penstock.limiter.script import CounterUsage
from penstock.limiter.store.errors import StoreLost
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, unavailable
from penstock.rpc.reasons import Reason

MAX_AMOUNT = 10**14
"""The largest amount that is accepted: a hundred million dollars, and exact in every number that
the script uses.
"""
MAX_TAGS = 32
"""Tags of a caller: each may be counted by a rule, and makes the entries of the ledger longer."""
MAX_NAME_LENGTH = 128
"""Characters of a hold's id and of a route."""


def spend_path(call: Call, model: str) -> SpendPath:
    """Who pays for a call and on which model; only the call's principal says who.

    Raises:
        Fault: INVALID_ARGUMENT, the principal has no organisation or too many tags.
    """
    who = call.principal
    if not who.organisation:
        raise invalid(
            "context.principal.organisation", "must not be empty: it names who pays for the call"
        )
    if len(who.tags) > MAX_TAGS:
        raise invalid("context.principal.tags", f"must be at most {MAX_TAGS}")
    return SpendPath(who.organisation, who.team, who.user, who.key_id, tuple(who.tags), model)


def priority_of(call: Call) -> int:
    """A call's priority, 1 to 4."""
    return call.priority or common_pb2.PRIORITY_NORMAL


def checked_amounts(field: str, given: pb.Amount) -> list[int]:
    """The three amounts of a field; raises INVALID_ARGUMENT for one that is out of bounds."""
    for part in ("requests", "tokens", "microusd"):
        if not 0 <= getattr(given, part) <= MAX_AMOUNT:
            raise invalid(f"{field}.{part}", f"must lie between 0 and {MAX_AMOUNT}")
    return [given.requests, given.tokens, given.microusd]


def check_id(field: str, value: str) -> None:
    """Raise INVALID_ARGUMENT for the id of a hold or a lease that is empty or too long."""
    if not 0 < len(value) <= MAX_NAME_LENGTH:
        raise invalid(field, f"must have 1 to {MAX_NAME_LENGTH} characters")


def checked_fence(fence: int) -> int:
    """A fence; raises INVALID_ARGUMENT for one that is out of bounds."""
    if not 0 <= fence <= MAX_AMOUNT:
        raise invalid("fence", f"must lie between 0 and {MAX_AMOUNT}")
    return fence


def check_route(value: str) -> None:
    """Raise INVALID_ARGUMENT for a route that is too long; it may be empty."""
    if len(value) > MAX_NAME_LENGTH:
        raise invalid("route", f"must have at most {MAX_NAME_LENGTH} characters")


def to_amount(amounts: Amounts) -> pb.Amount:
    """Three amounts as a message."""
    return pb.Amount(requests=amounts[0], tokens=amounts[1], microusd=amounts[2])


def to_rule_usage(counter: Counter, usage: CounterUsage) -> pb.RuleUsage:
    """The state of one counter as a message."""

    def amount(value: int) -> pb.Amount:
        amounts = [0, 0, 0]
        amounts[counter.dimension] = value
        return to_amount(amounts)

    return pb.RuleUsage(
        rule=counter.rule,
        limit=amount(usage.limit),
        committed=amount(usage.committed),
        held=amount(usage.held),
        window_ends_unix_ms=usage.window_ends_ms,
    )


@contextlib.contextmanager
def store_needed() -> Iterator[None]:
    """Answer UNAVAILABLE where the block meets a lost store."""
    try:
        yield
    except StoreLost:
        raise unavailable(
            "the store of the limiter's ledger does not answer; try again later",
            retry_after_s=STORE_LOST_RETRY_MS / 1e3,
            reason=Reason.STORE_UNAVAILABLE,
        ) from None
