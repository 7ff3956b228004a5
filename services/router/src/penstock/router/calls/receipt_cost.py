"""The money of a receipt: what a call cost, and what it would have cost without Penstock.

The full price is what was paid and what each technique saved, so the rows of savings add up to full
price less paid, by definition. What the provider's prefix cache saves of a call without Penstock as
well is no saving.
"""

from __future__ import annotations

from penstock.api.common.v1 import common_pb2
from penstock.prices.prices import Prices

PREFIX_CACHE = "prefix_cache"
"""Technique: the provider read more of the prompt from its own cache, or wrote less to it, than it
would have without Penstock.
"""


def write_cost(
    receipt: common_pb2.Receipt,
    prices: Prices,
    direct: common_pb2.Usage | None,
    shaped_microusd: int = 0,
    *,
    reused: bool,
) -> None:
    """Write what the model cost, nothing for a reused answer, and what asking the cache cost.

    A model without a price is not billed, and its cost is marked as estimated.

    Args:
        receipt: with its model, usage, cache and the savings so far.
        prices: in force.
        direct: what the call would have used without Penstock; None where nobody knows.
        shaped_microusd: what shaping says it saved, of those savings.
        reused: whether the answer was there already.
    """
    paid = 0 if reused else prices.paid_microusd(receipt.model, receipt.usage)
    if not reused:
        _write_prefix_saving(receipt, prices, direct, shaped_microusd)
    elif direct is not None and receipt.savings:
        _price_reuse(receipt, prices, direct)
    cost = receipt.cost
    cost.paid_microusd = (paid or 0) + receipt.cache.cost_microusd
    for saving in receipt.savings:
        cost.saved_microusd += saving.microusd
    cost.full_price_microusd = cost.paid_microusd + cost.saved_microusd
    cost.estimated = paid is None or receipt.usage.estimated


def _write_prefix_saving(
    receipt: common_pb2.Receipt,
    prices: Prices,
    direct: common_pb2.Usage | None,
    shaped_microusd: int,
) -> None:
    """What the provider's prefix cache saved: of a direct call its own, and beyond that what is
    left of the difference to the direct call's price.
    """
    usage = receipt.usage if direct is None else direct
    receipt.cost.provider_saved_microusd = prices.prefix_saving_microusd(receipt.model, usage)
    if direct is None:
        return
    without = prices.paid_microusd(receipt.model, direct) or 0
    paid = prices.paid_microusd(receipt.model, receipt.usage) or 0
    if beyond := without - paid - shaped_microusd:
        receipt.savings.add(technique=PREFIX_CACHE, microusd=beyond)


def _price_reuse(receipt: common_pb2.Receipt, prices: Prices, direct: common_pb2.Usage) -> None:
    """A reused answer saves what a direct call would cost now, and not what it once did."""
    now = prices.paid_microusd(receipt.model, direct) or 0
    then = prices.paid_microusd(receipt.model, receipt.usage) or 0
    receipt.savings[0].microusd += now - then
