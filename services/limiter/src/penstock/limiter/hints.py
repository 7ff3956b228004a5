"""What a refused call might do instead: fewer output tokens, or a cheaper model."""

from __future__ import annotations

import math

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.counters import MICROUSD, REQUESTS, TOKENS, Counter
from penstock.prices.prices import TOKENS_PER_MTOK, Prices
from penstock.service.purity import pure


@pure
def max_tokens_hint(
    counter: Counter, available: int, request: pb.ReserveRequest, prices: Prices
) -> int:
    """Output tokens that what a counter has available would pay for besides the input; 0: none."""
    if counter.dimension == REQUESTS or request.output_tokens <= 0:
        return 0
    if counter.dimension == TOKENS:
        input_tokens = request.amount.tokens - request.output_tokens
        affordable = available - input_tokens
    else:
        affordable = _affordable_output_tokens(available, request, prices)
    return max(0, min(request.output_tokens, affordable))


@pure
def cheaper_model_hint(
    counter: Counter, available: int, request: pb.ReserveRequest, prices: Prices
) -> str:
    """The dearest model that what a counter has available would pay for at the call's size; empty:
    none.
    """
    if counter.dimension != MICROUSD:
        return ""
    input_tokens = request.amount.tokens - request.output_tokens
    costs = {
        model: prices.cost_bound_microusd(model, input_tokens, request.output_tokens) or 0
        for model in prices.models
        if model != request.model
    }
    affordable = {model: cost for model, cost in costs.items() if 0 < cost <= available}
    return max(affordable, key=lambda model: affordable[model], default="")


def _affordable_output_tokens(
    available_microusd: int, request: pb.ReserveRequest, prices: Prices
) -> int:
    price = prices.models.get(request.model)
    if price is None:
        return 0
    dearest = max(price.output_microusd_per_mtok, price.reasoning_price)
    if dearest == 0:
        return 0
    output_microusd = -(-request.output_tokens * dearest // TOKENS_PER_MTOK)
    input_microusd = max(0, request.amount.microusd - output_microusd)
    # One micro-dollar less, for costs are rounded up.
    left_microusd = available_microusd - input_microusd - 1
    return math.floor(left_microusd * TOKENS_PER_MTOK / dearest)
