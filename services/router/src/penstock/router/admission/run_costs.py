"""What a call of a started run has spent, by what it was for. Pure.

The rows of a call come to what its receipt says was paid, or to what a try without an answer may be
billed. Each says by how much its micro-dollars are rounded up, so that many calls add up exactly.
"""

from __future__ import annotations

from penstock.api.common.v1 import common_pb2, run_pb2
from penstock.prices.prices import PICOUSD, Prices
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Spent
from penstock.service.purity import pure


@pure
def kind_of_answer(request: ResolvedRequest) -> run_pb2.RunCostKind:
    """What an answer to a request is paid for, where it is computed."""
    if request.job is not None:
        return run_pb2.RUN_COST_KIND_JOB
    if request.is_escalation:
        return run_pb2.RUN_COST_KIND_ESCALATION
    return run_pb2.RUN_COST_KIND_ANSWER


@pure
def costs_of_answer(
    prices: Prices, receipt: common_pb2.Receipt, kind: run_pb2.RunCostKind, step: str
) -> list[run_pb2.RunCost]:
    """What an answer has cost, and what asking the cache for it has."""
    look_up = receipt.cache.cost_microusd
    tokens = receipt.usage.input_tokens + receipt.usage.output_tokens
    cost = run_pb2.RunCost(step=step, kind=kind, model=receipt.model)
    cost.amount.calls, cost.amount.tokens = 1, tokens
    if receipt.HasField("route"):
        picousd = prices.paid_picousd(receipt.model, receipt.usage) or 0
        cost.estimated = receipt.cost.estimated
        _put_money(cost, receipt.cost.paid_microusd - look_up, picousd)
    else:
        cost.kind = run_pb2.RUN_COST_KIND_REUSED
    return [cost, *_cost_of_look_up(look_up, receipt.model, step)]


@pure
def costs_of_try(prices: Prices, spent: Spent, step: str) -> list[run_pb2.RunCost]:
    """What a try without an answer may be billed."""
    tokens = spent.input_tokens, spent.output_tokens
    kind = run_pb2.RUN_COST_KIND_HEDGE if spent.is_hedge else run_pb2.RUN_COST_KIND_FAILED_TRY
    cost = run_pb2.RunCost(step=step, kind=kind, model=spent.model, estimated=True)
    cost.amount.calls, cost.amount.tokens = 1, sum(tokens)
    microusd = prices.cost_bound_microusd(spent.model, *tokens) or 0
    _put_money(cost, microusd, prices.cost_bound_picousd(spent.model, *tokens) or 0)
    return [cost, *_cost_of_look_up(spent.lookup_microusd, spent.model, step)]


def _put_money(cost: run_pb2.RunCost, microusd: int, picousd: int) -> None:
    """Write what was paid, and how it was rounded; not at all where prices have changed since."""
    cost.amount.microusd = microusd
    rounding = microusd * PICOUSD - picousd
    cost.rounding_picousd = rounding if 0 <= rounding < PICOUSD else 0


def _cost_of_look_up(microusd: int, model: str, step: str) -> list[run_pb2.RunCost]:
    if not microusd:
        return []
    kind = run_pb2.RUN_COST_KIND_LOOK_UP
    cost = run_pb2.RunCost(step=step, kind=kind, model=model)
    cost.amount.microusd = microusd
    return [cost]
