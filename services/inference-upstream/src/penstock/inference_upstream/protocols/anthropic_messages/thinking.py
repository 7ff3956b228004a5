"""How a model of Anthropic's is asked to think. Pure: options in, body fields out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.switches import Switches
from penstock.rpc.errors import invalid
from penstock.service.purity import pure

EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""Efforts as this protocol has them."""
BUDGETS: Mapping[str, int] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 65536,
}
"""Tokens for models that take a budget and no effort."""
MIN_BUDGET = 1024
NONE = "none"


@pure
def thinking(asked: pb.ReasoningOptions, switches: Switches, max_tokens: int) -> dict[str, Any]:
    """The body fields; empty where nothing is asked for.

    Raises:
        Fault: INVALID_ARGUMENT where the budget leaves no room for an answer.
    """
    if switches.reasoning == NONE or asked.effort == NONE:
        return {}
    if asked.max_tokens:
        return {"thinking": _budget(asked.max_tokens, max_tokens)}
    if not asked.effort:
        return {}
    if switches.reasoning == "budget":
        fits = max(MIN_BUDGET, min(BUDGETS[asked.effort], max_tokens // 2))
        return {"thinking": _budget(fits, max_tokens)}
    return {
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": EFFORTS[asked.effort]},
    }


def _budget(tokens: int, max_tokens: int) -> dict[str, Any]:
    tokens = max(tokens, MIN_BUDGET)
    if tokens >= max_tokens:
        field = "task.generate.reasoning.max_tokens"
        raise invalid(field, f"is {tokens} and must be less than the answer's {max_tokens}")
    return {"type": "enabled", "budget_tokens": tokens}
