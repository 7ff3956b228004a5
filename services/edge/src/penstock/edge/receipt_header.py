"""A receipt in a header: what served a call, what it cost and what was saved. Pure."""

from __future__ import annotations

import re

from penstock.api.common.v1 import common_pb2
from penstock.service.purity import pure

_UNSAFE = re.compile(r"[^\x21-\x7e]|[;=,\"]")
OUTCOMES = {
    value: name.removeprefix("CACHE_OUTCOME_").lower()
    for name, value in common_pb2.CacheOutcome.items()
}


@pure
def receipt_header(receipt: common_pb2.Receipt) -> str:
    """`id=…;model=…;instance=…;cache=…;cost_usd=…;saved_usd=…`. Values are made safe: the name of a
    model must not become a header of its own.
    """
    cost = receipt.cost
    fields = {
        "id": receipt.request_id,
        "model": receipt.model,
        "instance": receipt.route.instance_id or "none",
        "cache": OUTCOMES.get(receipt.cache.outcome, "none"),
        "cost_usd": _usd(cost.paid_microusd),
        "saved_usd": _usd(cost.saved_microusd),
    }
    return ";".join(f"{name}={_UNSAFE.sub('_', value)}" for name, value in fields.items())


def _usd(microusd: int) -> str:
    return f"{microusd / 1e6:.6f}"
