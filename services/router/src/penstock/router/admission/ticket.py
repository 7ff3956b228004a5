"""What a call asks of the limits, and what it may spend once it is admitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from penstock.router.admission.lease import NOTHING, Amounts, Lease, SpendPath
from penstock.router.admission.output_limit import OutputLimit
from penstock.rpc.call import Call


class Demand(NamedTuple):
    """What a call asks of the limits."""

    path: SpendPath
    amounts: Amounts
    """At most."""
    unpriced: bool
    limit: OutputLimit
    """The output that the amounts contain."""
    is_leasable: bool


@dataclass(slots=True)
class Ticket:
    """What one admitted call may spend, and of which lease or hold."""

    call: Call
    amounts: Amounts
    """What it has drawn from the lease, or else what it holds."""
    lease: Lease | None = None
    hold_id: str = ""
    """Of a call from a lease: what the lease could not cover of a long answer."""
    beyond_lease: Amounts = NOTHING
    fence: int = 0
    model: str = ""
    covered_tokens: int = 0
    """Output tokens that the hold covers."""


def sum_of(left: Amounts, right: Amounts) -> Amounts:
    """Both together."""
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


def difference(left: Amounts, right: Amounts) -> Amounts:
    """The first less the second."""
    return left[0] - right[0], left[1] - right[1], left[2] - right[2]


def least_of(left: Amounts, right: Amounts) -> Amounts:
    """Of each part the lesser."""
    return min(left[0], right[0]), min(left[1], right[1]), min(left[2], right[2])
