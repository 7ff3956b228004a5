"""Returning leases: this process's own, and those that killed processes had overdrawn."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.router.admission.lease import SpendPath
from penstock.router.admission.limiter_calls import LimiterCalls, to_amount
from penstock.router.admission.overdraft_journal import LeftBehind, Overdraft, OverdraftJournal
from penstock.rpc.call import Call
from penstock.service.clock import Clock

LEFT_BEHIND_EVERY_S = 30.0
"""Seconds between two looks for overdrafts of processes that were killed."""

log = logging.getLogger(__name__)


async def return_lease(
    limiter: LimiterCalls, lease_id: str, path: SpendPath, spent: Sequence[int]
) -> bool:
    """Tell the limiter what was spent from a lease; False where it stays away."""
    request = pb.ReturnLeaseRequest(lease_id=lease_id, spent=to_amount(spent), model=path.model)
    call = Call(path.principal, path.priority)
    return await limiter.repeat("ReturnLease", request, call) is not None


async def settle_left_behind(
    journal: OverdraftJournal, limiter: LimiterCalls, clock: Clock
) -> None:
    """Settle what processes that were killed had overdrawn, for ever."""
    while True:
        for left in journal.left_behind():
            await _settle(left, limiter, clock)
        await clock.sleep(LEFT_BEHIND_EVERY_S)


async def _settle(left: LeftBehind, limiter: LimiterCalls, clock: Clock) -> None:
    is_settled = False
    try:
        overdrafts = left.overdrafts()
        is_settled = all([await _return(each, limiter, clock) for each in overdrafts])
    finally:
        left.close(is_settled=is_settled)


async def _return(overdraft: Overdraft, limiter: LimiterCalls, clock: Clock) -> bool:
    lease_id, spent = overdraft.to_settle(clock.time())
    if not await return_lease(limiter, lease_id, overdraft.path, spent):
        return False
    log.warning(
        "settled an overdraft that was left behind: %s, model %s, at most %d requests, %d tokens, "
        "%d micro-dollars beyond its lease",
        overdraft.path.principal.organisation,
        overdraft.path.model,
        *overdraft.beyond,
    )
    return True
