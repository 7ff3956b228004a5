"""How much a call may cost and say: the caller's ceiling, and the length of an answer that its
caller left open.

A length is cut short where the model's own limit is not declared, or where the ceiling or a budget
affords no more; the receipt then says which.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.errors import exhausted
from penstock.rpc.reasons import Reason
from penstock.service.purity import pure

ASSUMED_OUTPUT_TOKENS = 4_096
"""Longest answer of a model whose own limit is not declared, under limits that have to hold for
it.
"""


class OutputLimit(NamedTuple):
    """Output tokens that are held for a call."""

    tokens: int
    note: str = ""
    """What the receipt says of it."""


@pure
def output_limit(request: ResolvedRequest, prices: Prices, own_limit: int) -> OutputLimit:
    """The length of an answer that its caller left open: the model's own, or what the caller's
    ceiling affords. Without a price nothing bounds it, and nothing is held.

    Args:
        own_limit: what the model's instances say of its longest answer; 0 where they say nothing.

    Raises:
        Fault: the ceiling affords no answer at all.
    """
    model, options = request.model, request.options
    price = prices.models.get(model)
    if price is None:
        return OutputLimit(0)
    longest = price.max_output_tokens or own_limit
    limit = OutputLimit(longest or ASSUMED_OUTPUT_TOKENS)
    if not longest:
        why = f"nothing declares max_output_tokens of {model}"
        limit = limit._replace(note=_note(limit.tokens, why))
    bound = request.estimate.input_bound
    cost = prices.cost_bound_microusd(model, bound, limit.tokens) or 0
    if options.HasField("max_cost_microusd") and cost > options.max_cost_microusd:
        least = prices.cost_bound_microusd(model, bound, 1) or 0
        check_ceiling(options, least)
        within = prices.output_tokens_within(model, bound, options.max_cost_microusd)
        limit = OutputLimit(within, _note(within, "options.max_cost_microusd affords no more"))
    return limit


@pure
def affordable(decision: pb.Decision) -> OutputLimit:
    """The length that a refusing limit affords."""
    tokens = decision.max_tokens_hint
    return OutputLimit(tokens, _note(tokens, f"limit {decision.rule} affords no more"))


@pure
def check_ceiling(options: router_pb2.CallOptions, cost_microusd: int) -> None:
    """Raises:
    Fault: the call may cost more than its caller allows for it.
    """
    if options.HasField("max_cost_microusd") and cost_microusd > options.max_cost_microusd:
        message = (
            f"options.max_cost_microusd: this call may cost {cost_microusd} micro-dollars, "
            f"{options.max_cost_microusd} are allowed"
        )
        raise exhausted(message, reason=Reason.COST_CEILING)


def _note(tokens: int, why: str) -> str:
    return f"output limited to {tokens:,} tokens: {why}"
