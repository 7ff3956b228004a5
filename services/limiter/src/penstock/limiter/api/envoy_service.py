"""Envoy's rate limit service, version 3: descriptors in, a code for each of them and for all out.

Every descriptor that a rule limits is one rate counter. Nothing is counted unless every descriptor
passes, which differs from Envoy's reference service on purpose: there, a refused request uses up
the limits of the descriptors that would have passed.

Envoy waits 20 ms by default and then decides without an answer. So each call waits for the store
only as long as that leaves time, and otherwise the rules' `store_loss` decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import grpc
from google.protobuf import duration_pb2
from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.calendar_windows import UNIT_SECONDS
from penstock.limiter.counters import NOTHING, REQUESTS, RateCounter, organisation_prefix
from penstock.limiter.envoy_rules import (
    YEAR_S,
    Entry,
    EnvoyLimit,
    EnvoyLimits,
    counter_name,
    shown_name,
)
from penstock.limiter.holds import STORE_LOST_RETRY_MS
from penstock.limiter.script import CounterUsage, Reservation, Ruling
from penstock.limiter.store.errors import StoreLost
from penstock.limiter.store.ledger_store import LedgerStore

MAX_STORE_WAIT_S = 0.010
"""Longest wait for the store: half of the time that Envoy waits by default."""
RETURN_S = 0.005
"""Left for the way back to a caller that says how long it waits."""
MAX_DESCRIPTORS = 64
UNIT_LENGTHS_S: dict[int, int] = {
    rls.SECOND: 1,
    rls.MINUTE: 60,
    rls.HOUR: 3_600,
    rls.DAY: 86_400,
    rls.WEEK: 604_800,
    rls.MONTH: UNIT_SECONDS["month"],
    rls.YEAR: YEAR_S,
}
"""Length of each unit of the protocol."""
UNITS_BY_LENGTH = {length_s: unit for unit, length_s in UNIT_LENGTHS_S.items()}
SPEND_NOW = Reservation(NOTHING, NOTHING, NOTHING, ttl_ms=0)
"""Spends each counter's `own_amount`; nobody settles it."""
OK = rls.RateLimitResponse.OK
OVER_LIMIT = rls.RateLimitResponse.OVER_LIMIT

DescriptorCounters = Sequence[RateCounter | None]
"""The counter of each descriptor; None where nothing limits it."""
Usages = Mapping[str, CounterUsage]
"""Usage by counter key."""


class EnvoyServicer:
    """envoy.service.ratelimit.v3.RateLimitService."""

    def __init__(
        self,
        limiter: LimiterServicer,
        store: LedgerStore,
        max_store_wait_s: float = MAX_STORE_WAIT_S,
    ) -> None:
        self._limiter = limiter
        self._store = store
        self._max_store_wait_s = max_store_wait_s

    async def ShouldRateLimit(
        self, request: rls.RateLimitRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> rls.RateLimitResponse:
        """Decide; aborts with INVALID_ARGUMENT for a request without domain or descriptors."""
        problem = _problem(request)
        if problem:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        counters = [self._counter(request, descriptor) for descriptor in request.descriptors]
        merged = _merge_repeated(counters)
        try:
            async with asyncio.timeout(self._store_wait_s(context.time_remaining())):
                ruling, usages = await self._spend(request.domain, merged)
        except (StoreLost, TimeoutError):
            ruling, usages = _rule_without_store(merged)
        by_key = {counter.key: usage for counter, usage in zip(merged, usages, strict=True)}
        return _response(counters, merged, by_key, ruling)

    def _store_wait_s(self, left_s: float | None) -> float:
        """How long to wait for the store.

        Args:
            left_s: how long the caller still waits, counted from the arrival of its call, wherever
                that has been queued since; None: it does not say.
        """
        if left_s is None:
            return self._max_store_wait_s
        return min(self._max_store_wait_s, max(0.0, left_s - RETURN_S))

    async def _spend(
        self, domain: str, counters: Sequence[RateCounter]
    ) -> tuple[Ruling, list[CounterUsage]]:
        """Spend, and read the counters afterwards; both go to the store in one batch."""
        if not counters:
            return Ruling(pb.VERDICT_ALLOWED), []
        organisation = _organisation(domain)
        ruling, usages = await asyncio.gather(
            self._store.reserve(organisation, "", counters, SPEND_NOW),
            self._store.usage(organisation, counters),
        )
        return ruling, usages

    def _counter(
        self, request: rls.RateLimitRequest, descriptor: rls.RateLimitDescriptor
    ) -> RateCounter | None:
        """The counter of a descriptor: by the limit that it brings, else by the first rule that
        fits; None where nothing limits it.
        """
        section = self._limiter.counters.section
        entries = tuple(Entry(entry.key, entry.value) for entry in descriptor.entries)
        limit = limit_of(section.envoy, request.domain, descriptor, entries)
        if limit is None or limit.is_unlimited:
            return None
        prefix = organisation_prefix(_organisation(request.domain))
        return RateCounter(
            key=f"{prefix}c:envoy:{limit.period_s}:{counter_name(limit.entries)}",
            rule=limit.name or shown_name(limit.entries),
            dimension=REQUESTS,
            limit=max(limit.requests, 1),
            is_shadow=section.shadow or limit.is_shadow,
            store_loss=limit.store_loss,
            period_us=limit.period_s * 1_000_000,
            burst=limit.requests,
            own_amount=_hits(request, descriptor),
        )


def limit_of(
    rules: Sequence[EnvoyLimits],
    domain: str,
    descriptor: rls.RateLimitDescriptor,
    entries: Sequence[Entry],
) -> EnvoyLimit | None:
    """What limits a descriptor: the first rule that fits, with the limit that the descriptor brings
    in place of the rule's; None where nothing does.
    """
    limits = (rule.limit_for(domain, entries) for rule in rules)
    limit = next((limit for limit in limits if limit is not None), None)
    own = descriptor.limit
    if not descriptor.HasField("limit") or own.unit not in UNIT_LENGTHS_S:
        return limit
    ruled = limit or EnvoyLimit(0, 0, tuple(entries))
    return ruled._replace(
        requests=own.requests_per_unit, period_s=UNIT_LENGTHS_S[own.unit], is_unlimited=False
    )


def _problem(request: rls.RateLimitRequest) -> str:
    """What is wrong with a request, and in which field; empty if nothing is."""
    if not request.domain:
        return "domain: must not be empty"
    if not 0 < len(request.descriptors) <= MAX_DESCRIPTORS:
        return f"descriptors: must have 1 to {MAX_DESCRIPTORS} elements"
    return ""


def _organisation(domain: str) -> str:
    """Where the counters of a domain are kept, apart from those of organisations."""
    return f"envoy/{domain}"


def _hits(request: rls.RateLimitRequest, descriptor: rls.RateLimitDescriptor) -> int:
    if descriptor.HasField("hits_addend"):
        return descriptor.hits_addend.value
    return request.hits_addend or 1


def _merge_repeated(counters: DescriptorCounters) -> list[RateCounter]:
    """Each counter once, with the hits of all its descriptors: descriptors that are the same pass
    together or not at all.
    """
    merged: dict[str, RateCounter] = {}
    for counter in counters:
        if counter is None:
            continue
        before = merged.get(counter.key)
        hits = _own_amount(counter) + (_own_amount(before) if before else 0)
        merged[counter.key] = replace(counter, own_amount=hits)
    return list(merged.values())


def _own_amount(counter: RateCounter) -> int:
    return counter.own_amount or 0


def _rule_without_store(counters: Sequence[RateCounter]) -> tuple[Ruling, list[CounterUsage]]:
    """What the rules' `store_loss` says, and counters of which nothing is known to be used."""
    usages = [CounterUsage(counter.limit, 0, 0, 0) for counter in counters]
    for index, counter in enumerate(counters):
        if counter.store_loss == "closed":
            return Ruling(pb.VERDICT_STORE_UNAVAILABLE, index, STORE_LOST_RETRY_MS), usages
    return Ruling(pb.VERDICT_ALLOWED), usages


def _response(
    counters: DescriptorCounters, merged: Sequence[RateCounter], usages: Usages, ruling: Ruling
) -> rls.RateLimitResponse:
    is_allowed = ruling.verdict == pb.VERDICT_ALLOWED
    response = rls.RateLimitResponse(overall_code=OK if is_allowed else OVER_LIMIT)
    response.statuses.extend(_status(counter, usages) for counter in counters)
    if not is_allowed:
        for index in _over_limit(counters, merged, usages, ruling):
            response.statuses[index].code = OVER_LIMIT
    _add_headers(response, merged, usages)
    return response


def _over_limit(
    counters: DescriptorCounters, merged: Sequence[RateCounter], usages: Usages, ruling: Ruling
) -> list[int]:
    """Indexes of the descriptors to blame for a refusal: those without enough left, or else the
    first one of the counter that decided.
    """
    hits = {counter.key: _own_amount(counter) for counter in merged}
    over_limit = [
        index
        for index, counter in enumerate(counters)
        if counter is not None
        and not counter.is_shadow
        and hits[counter.key] > _remaining(counter, usages)
    ]
    if over_limit:
        return over_limit
    decided = merged[max(ruling.counter_index, 0)].key
    return [[counter.key if counter else "" for counter in counters].index(decided)]


def _status(counter: RateCounter | None, usages: Usages) -> rls.RateLimitResponse.DescriptorStatus:
    status = rls.RateLimitResponse.DescriptorStatus(code=OK)
    if counter is None:
        return status
    committed = usages[counter.key].committed
    status.current_limit.requests_per_unit = counter.burst
    status.current_limit.name = counter.rule
    unit = UNITS_BY_LENGTH[counter.period_us // 1_000_000]
    status.current_limit.unit = unit  # type: ignore[assignment] # the stubs want their enumeration
    status.limit_remaining = _remaining(counter, usages)
    reset_s = committed * counter.period_us / counter.limit / 1e6
    status.duration_until_reset.CopyFrom(_duration(reset_s))
    return status


def _remaining(counter: RateCounter, usages: Usages) -> int:
    return max(0, counter.burst - usages[counter.key].committed)


def _add_headers(
    response: rls.RateLimitResponse, counters: Sequence[RateCounter], usages: Usages
) -> None:
    """Add the tightest limit as `ratelimit-limit`, `-remaining` and `-reset` (IETF
    draft-polli-ratelimit-headers-03).
    """
    if not counters:
        return
    tightest = min(counters, key=lambda counter: counter.burst - usages[counter.key].committed)
    committed = usages[tightest.key].committed
    reset_s = -(-committed * tightest.period_us // tightest.limit // 1_000_000)
    for name, value in (
        ("ratelimit-limit", tightest.burst),
        ("ratelimit-remaining", _remaining(tightest, usages)),
        ("ratelimit-reset", reset_s),
    ):
        response.response_headers_to_add.add(key=name, value=str(value))


def _duration(seconds: float) -> duration_pb2.Duration:
    whole_s = int(seconds)
    return duration_pb2.Duration(seconds=whole_s, nanos=int((seconds - whole_s) * 1e9))
