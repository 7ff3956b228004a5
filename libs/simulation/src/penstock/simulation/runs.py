"""One simulated run by a seed, what it came to, and how a run that fails is made smaller."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.api.limiter.v1 import limiter_pb2
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.service.logs import silenced
from penstock.simulation.callers import (
    JOB_TENANT,
    TENANTS,
    Told,
    keep_calling,
    keep_submitting,
)
from penstock.simulation.fault_plan import FaultKind, FaultPlan
from penstock.simulation.invariants import (
    Violation,
    booked,
    check_answers,
    check_calls,
    check_jobs,
    check_money,
)
from penstock.simulation.scripted_instance import Computations, ScriptedInstance
from penstock.simulation.system import (
    HEARTBEAT_S,
    HOLD_MS,
    INSTANCES,
    LEASE_MS,
    MODEL,
    SERVICES,
    System,
    config_file,
    keep_registered,
)
from penstock.simulation.virtual_loop import run_virtual
from penstock.stack.configuration import api_key

LIMITER = limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"]
LIMITS = dict.fromkeys((*TENANTS, JOB_TENANT), 10**9) | {"tight": 300}
"""Tokens a month; that of `tight` is soon reached."""
RATES: dict[FaultKind, float] = {
    "delay": 0.02,
    "lost_request": 0.01,
    "lost_answer": 0.01,
    "hang": 0.004,
    "fail": 0.03,
    "cancel": 0.1,
}
TIGHT_COUNTER = "penstock:limiter:{tight}:c:budget-tight:calendar-tokens-month:tight"
STORES = ("ledger", "answers")
CALLERS, CALLS, JOBS = 6, 6, 2
JOBS_END_S = 90.0
LIMITER_WELL_S = 2.0
SETTLED_S = HOLD_MS / 1e3 + 2 * LEASE_MS / 1e3 + 1.0


@dataclass
class Outcome:
    """What a run came to; two runs of one seed have the same digest."""

    seed: int
    violations: list[Violation] = field(default_factory=list)
    faults: dict[str, FaultKind] = field(default_factory=dict)
    calls: int = 0
    answered: int = 0
    digest: str = ""


def play(
    seed: int,
    only: frozenset[str] | None = None,
    rates: Mapping[FaultKind, float] = RATES,
    kills: Sequence[str] | None = None,
) -> Outcome:
    """Run a seed in virtual time.

    Args:
        only: keys of the faults that may happen; None: all.
        rates: by kind of fault, the share of awaits at which it happens.
        kills: what is killed and started again, one after the other; None: chosen by the seed.
    """
    with silenced(logging.CRITICAL), config_file(sections()) as file:
        return run_virtual(_play(FaultPlan(seed, rates, only), kills, file))


def shrink(seed: int) -> tuple[Outcome, frozenset[str]]:
    """The fewest faults that were found with which a seed still violates the same invariant, and
    the outcome with those.
    """
    outcome = play(seed)
    wanted = {one.invariant for one in outcome.violations}
    kept = list(outcome.faults)
    size = max(len(kept) // 2, 1)
    while kept and wanted:
        for at in range(0, len(kept), size):
            fewer = kept[:at] + kept[at + size :]
            smaller = play(seed, frozenset(fewer))
            if wanted & {one.invariant for one in smaller.violations}:
                kept, outcome = [key for key in fewer if key in smaller.faults], smaller
                break
        else:
            if size == 1:
                break
            size //= 2
    return outcome, frozenset(kept)


def token_budget(tenant: str, limit: int) -> dict[str, object]:
    """A tenant's rule of so many tokens a month."""
    return {
        "name": f"budget-{tenant}",
        "organisation": tenant,
        "kind": "budget",
        "counts": "tokens",
        "limit": limit,
        "window": "month",
        "calendar": True,
        "adaptive": False,
    }


def sections() -> dict[str, object]:
    """The configuration of a run: keys of the tenants, and a budget for each."""
    rules = [token_budget(tenant, limit) for tenant, limit in LIMITS.items()]
    keys = [api_key(tenant, f"psk-{tenant}") for tenant in LIMITS]
    return {"keys": {"api": keys}, "limits": {"rules": rules}}


async def _play(plan: FaultPlan, kills: Sequence[str] | None, file: Path) -> Outcome:
    system, told, computations = System(plan, file), Told(), Computations()
    for name in SERVICES:
        await system.start(name)
    registering = [asyncio.create_task(keep_registered(system, name)) for name in INSTANCES]
    for name in INSTANCES:
        system.serve_instance(name, ScriptedInstance(name, plan, computations))
    await asyncio.sleep(2 * HEARTBEAT_S)
    plan.is_active = True
    overshoot = _watch_limits(system)
    await _load(system, told, kills)
    plan.is_active = False
    await _jobs_ended(system, told)
    await asyncio.sleep(SETTLED_S)
    stuck = await _look_at_budgets(system)
    violations = [*overshoot, *stuck, *_checked(system, told, computations)]
    for name in reversed(SERVICES):
        await system.stop(name)
    for task in registering:
        task.cancel()
    await asyncio.wait(registering)
    violations += _tasks_left()
    answered = sum(call.status == "OK" for call in told.calls)
    digest = hashlib.sha256(repr(told.calls).encode()).hexdigest()[:16]
    return Outcome(plan.seed, violations, plan.happened, len(told.calls), answered, digest)


async def _load(system: System, told: Told, kills: Sequence[str] | None) -> None:
    """All callers, and what kills services meanwhile."""
    await asyncio.gather(
        *(
            keep_calling(system, TENANTS[number % len(TENANTS)], number, CALLS, told)
            for number in range(CALLERS)
        ),
        keep_submitting(system, JOBS, told),
        _kill_some(system, kills),
    )


async def _kill_some(system: System, kills: Sequence[str] | None) -> None:
    rng = system.plan.rng("kills")
    if kills is None:
        kills = rng.choices((*SERVICES, *STORES), k=rng.choice((0, 0, 1, 2)))
    for number, target in enumerate(kills):
        await asyncio.sleep(rng.uniform(0.1, 1.0))
        if not system.plan.may_happen(f"kill {target}#{number}", "fail"):
            continue
        if target in SERVICES:
            await system.kill(target)
            await asyncio.sleep(rng.uniform(0.0, 0.5))
            await system.start(target)
        else:
            (system.ledger if target == "ledger" else system.answers).restart()


def _watch_limits(system: System) -> list[Violation]:
    """Compare what stands on the tight budget with its limit after every command; returns a list
    that is filled meanwhile.
    """
    found: list[Violation] = []
    model = system.ledger.model

    def check() -> None:
        row = model.peek(TIGHT_COUNTER)
        used = int(row.get("c", 0)) + int(row.get("h", 0)) if row else 0
        if used > LIMITS["tight"] and not found:
            found.append(Violation("overshoot", f"{used} of {LIMITS['tight']}"))

    system.ledger.after_command = check
    return found


async def _jobs_ended(system: System, told: Told) -> None:
    """Wait until no job is open, or for as long as a job may take."""
    end_s = system.clock.monotonic() + JOBS_END_S
    while system.clock.monotonic() < end_s:
        rows = [
            system.ledger.model.peek(f"penstock:{{jobs}}:job:{each}") for each in told.jobs.values()
        ]
        if all(row is not None and "ends" in row for row in rows):
            return
        await asyncio.sleep(0.5)


async def _look_at_budgets(system: System) -> list[Violation]:
    """Ask for the state of every budget: holds that are due expire when anybody asks. A limiter
    whose store is well must say so soon.
    """
    peer = system.client("limiter", LIMITER)
    ends_s = system.clock.monotonic() + LIMITER_WELL_S
    for tenant in LIMITS:
        while True:
            caller = Call(Principal(tenant, key_id=tenant), deadline_s=ends_s)
            try:
                await peer.call("GetUsage", limiter_pb2.GetUsageRequest(model=MODEL), caller)
            except Fault as fault:
                if system.clock.monotonic() >= ends_s:
                    return [Violation("stuck limiter", str(fault))]
                await asyncio.sleep(0.2)
            else:
                break
    return []


def _checked(system: System, told: Told, computations: Computations) -> Iterator[Violation]:
    ledger = system.ledger.model
    books = {tenant: booked(ledger, f"budget-{tenant}") for tenant in LIMITS}
    yield from check_calls(told.calls)
    yield from check_answers(told.calls, computations)
    yield from check_money(told, books, LIMITS)
    yield from check_jobs(told, ledger)


def _tasks_left() -> list[Violation]:
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return [Violation("task left", repr(task)) for task in left]
