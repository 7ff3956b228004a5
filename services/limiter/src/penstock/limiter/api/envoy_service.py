"""Envoy's rate limit service, version 3: descriptors in, a verdict for each and for all out.

In time: late is open or closed by rule.

Differs from the reference service on purpose: nothing is counted unless every descriptor passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import grpc
from google.protobuf import duration_pb2
from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.decisions import CounterUsage, Reservation, Ruling
from penstock.limiter.ledger_store import LedgerStore, StoreLost
from penstock.limiter.rules import SECONDS, Counter, EnvoyRule, organisation_prefix

ANSWER_S = 0.010
"""Longest wait for the store: half of the 20 ms that Envoy waits by default before it does as it
likes; the rest is for the way.
"""
RETURN_S = 0.005
"""Left for the way back to a caller that says how long it waits."""
MAX_DESCRIPTORS = 64
PERIODS_S = {1: 1, 2: 60, 3: 3_600, 4: 86_400, 5: SECONDS["month"], 6: 365 * 86_400, 7: 604_800}
"""Length of a unit by its number in the protocol (which is not in the order of time)."""


class EnvoyServicer:
    """envoy.service.ratelimit.v3.RateLimitService."""

    def __init__(
        self, limiter: LimiterServicer, store: LedgerStore, answer_s: float = ANSWER_S
    ) -> None:
        self._limiter, self._store, self._answer_s = limiter, store, answer_s

    async def ShouldRateLimit(
        self, request: rls.RateLimitRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> rls.RateLimitResponse:
        """Decide; aborts with INVALID_ARGUMENT for a request without domain or descriptors."""
        if not request.domain or not 0 < len(request.descriptors) <= MAX_DESCRIPTORS:
            field = "descriptors" if request.domain else "domain"
            said = f"{field}: needs {'1 to 64 descriptors' if request.domain else 'a name'}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, said)
        found = [self._counter(request, descriptor) for descriptor in request.descriptors]
        rows = _once(found)
        try:
            async with asyncio.timeout(self._wait_s(context.time_remaining())):
                reply, states = await self._ask(request.domain, rows)
        except (StoreLost, TimeoutError):
            shut = next((index for index, row in enumerate(rows) if row.store_loss == "closed"), -1)
            verdict = pb.VERDICT_ALLOWED if shut < 0 else pb.VERDICT_STORE_UNAVAILABLE
            reply, states = (
                Ruling(verdict, shut, 1000),
                [CounterUsage(row.limit, 0, 0, 0) for row in rows],
            )
        return _response(found, rows, states, reply)

    def _wait_s(self, left_s: float | None) -> float:
        """Time for the store.

        What a caller still waits counts from its call's arrival, wherever that has queued since.
        """
        return (
            self._answer_s if left_s is None else min(self._answer_s, max(0.0, left_s - RETURN_S))
        )

    async def _ask(self, domain: str, rows: Sequence[Counter]) -> tuple[Ruling, list[CounterUsage]]:
        if not rows:
            return Ruling(pb.VERDICT_ALLOWED), []
        nothing = [0, 0, 0]
        ask = Reservation(nothing, nothing, nothing, 0)
        organisation = _organisation(domain)
        reply, states = await asyncio.gather(
            self._store.reserve(organisation, "", rows, ask), self._store.usage(organisation, rows)
        )
        return reply, states

    def _counter(
        self, request: rls.RateLimitRequest, descriptor: rls.RateLimitDescriptor
    ) -> Counter | None:
        """The counter of a descriptor: its own limit, else the first rule that fits; None where
        nothing limits it.
        """
        rule = next(
            (
                rule
                for rule in self._limiter.section.envoy
                if _fits(rule, request.domain, descriptor)
            ),
            None,
        )
        limit, period_s = (rule.requests_per_unit, SECONDS[rule.unit]) if rule else (0, 0)
        if descriptor.HasField("limit") and descriptor.limit.unit in PERIODS_S:
            limit, period_s = descriptor.limit.requests_per_unit, PERIODS_S[descriptor.limit.unit]
        elif rule is None:
            return None
        value = "|".join(
            f"{len(entry.key)}:{entry.key}={entry.value}" for entry in descriptor.entries
        )
        hits = (
            descriptor.hits_addend.value
            if descriptor.HasField("hits_addend")
            else request.hits_addend or 1
        )
        return Counter(
            f"{organisation_prefix(_organisation(request.domain))}c:envoy:{period_s}:{value}",
            (rule.name if rule else "") or value,
            "rate",
            0,
            max(limit, 1),
            shadow=self._limiter.section.shadow or (rule is not None and rule.shadow),
            store_loss=rule.store_loss if rule else "open",
            start=period_s * 1_000_000,
            end=limit,
            amount=hits,
        )


def _once(found: Sequence[Counter | None]) -> list[Counter]:
    """Each counter once, with all that is asked of it: descriptors that are the same are counted
    together, and pass together or not.
    """
    rows: dict[str, Counter] = {}
    for counter in found:
        if counter is not None:
            before = rows.get(counter.key)
            rows[counter.key] = (
                replace(counter, amount=before.amount + counter.amount) if before else counter
            )
    return list(rows.values())


def _organisation(domain: str) -> str:
    return f"envoy/{domain}"


def _fits(rule: EnvoyRule, domain: str, descriptor: rls.RateLimitDescriptor) -> bool:
    if rule.domain != domain or len(rule.descriptor) != len(descriptor.entries):
        return False
    pairs = zip(rule.descriptor, descriptor.entries, strict=True)
    return all(wanted in (entry.key, f"{entry.key}={entry.value}") for wanted, entry in pairs)


def _response(
    found: Sequence[Counter | None],
    rows: Sequence[Counter],
    states: Sequence[CounterUsage],
    reply: Ruling,
) -> rls.RateLimitResponse:
    passed = reply.verdict == pb.VERDICT_ALLOWED
    response = rls.RateLimitResponse(
        overall_code=rls.RateLimitResponse.OK if passed else rls.RateLimitResponse.OVER_LIMIT
    )
    by_key = {row.key: state for row, state in zip(rows, states, strict=True)}
    asked = {row.key: row.amount for row in rows}
    for counter in found:
        status = response.statuses.add(code=rls.RateLimitResponse.OK)
        if counter is None:
            continue
        state = by_key[counter.key]
        left = max(0, counter.end - state.committed)
        status.current_limit.requests_per_unit = counter.end
        status.current_limit.name = counter.rule
        seconds = counter.start // 1_000_000
        status.current_limit.unit = next(
            unit for unit, length in PERIODS_S.items() if length == seconds
        )  # type: ignore[assignment]
        status.limit_remaining = left
        status.duration_until_reset.CopyFrom(
            _duration(state.committed * counter.start / counter.limit / 1e6)
        )
        if not passed and not counter.shadow and asked[counter.key] > left:
            status.code = rls.RateLimitResponse.OVER_LIMIT
    if not passed and not any(
        status.code == rls.RateLimitResponse.OVER_LIMIT for status in response.statuses
    ):
        key = rows[max(reply.at, 0)].key
        response.statuses[
            [row.key if row else "" for row in found].index(key)
        ].code = rls.RateLimitResponse.OVER_LIMIT
    _headers(response, by_key, rows)
    return response


def _headers(
    response: rls.RateLimitResponse, states: dict[str, CounterUsage], rows: Sequence[Counter]
) -> None:
    """The tightest limit as `ratelimit-limit`, `-remaining`, `-reset` (IETF
    draft-polli-ratelimit-headers-03).
    """
    if not rows:
        return
    tightest = min(rows, key=lambda row: row.end - states[row.key].committed)
    used = states[tightest.key].committed
    for name, value in (
        ("ratelimit-limit", tightest.end),
        ("ratelimit-remaining", max(0, tightest.end - used)),
        ("ratelimit-reset", -(-used * tightest.start // tightest.limit // 1_000_000)),
    ):
        response.response_headers_to_add.add(key=name, value=str(value))


def _duration(seconds: float) -> duration_pb2.Duration:
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
