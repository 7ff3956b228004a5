"""The money of one call: paid, full price, and the savings between them, which add up exactly.

Plain.
"""

from __future__ import annotations

from penstock.api.common.v1 import common_pb2
from penstock.prices.prices import Prices

PREFIX_CACHE = "prefix_cache"


def bill(
    receipt: common_pb2.Receipt, usage: common_pb2.Usage, prices: Prices, *, reused: bool
) -> None:
    """Write a receipt's cost: the model's, nothing for a reused answer, and what asking the cache
    for likeness cost. A model without a price is not billed, and its cost is marked as estimated.

    The full price is what was paid and what each technique says it saved: the rows add up to full
    price less paid, by definition.
    """
    paid = 0 if reused else prices.paid_microusd(receipt.model, usage)
    if not reused:
        saved = prices.prefix_saving_microusd(receipt.model, usage)
        if saved:
            receipt.savings.add(technique=PREFIX_CACHE, microusd=saved)
    saved_microusd = 0
    for saving in receipt.savings:
        saved_microusd += saving.microusd
    cost = receipt.cost
    cost.paid_microusd = (paid or 0) + receipt.cache.cost_microusd
    cost.saved_microusd = saved_microusd
    cost.full_price_microusd = cost.paid_microusd + saved_microusd
    cost.estimated = paid is None or usage.estimated
