"""A receipt in one line: who served the call, how long it took, what it cost."""

from __future__ import annotations

from penstock.api.common.v1 import common_pb2
from penstock.cli.output import dollars
from penstock.cli.prefixes import loss_line
from rich.text import Text

CACHE_OUTCOMES = {
    common_pb2.CACHE_OUTCOME_MISS: "cache miss",
    common_pb2.CACHE_OUTCOME_EXACT_HIT: "cached",
    common_pb2.CACHE_OUTCOME_SEMANTIC_HIT: "cached (semantic)",
    common_pb2.CACHE_OUTCOME_COALESCED: "coalesced",
    common_pb2.CACHE_OUTCOME_BYPASSED: "cache bypassed",
}


def receipt_line(receipt: common_pb2.Receipt, *, with_notes: bool = True) -> Text:
    """The receipt as faint text; notes on what was lost on the way follow in yellow."""
    usage = receipt.usage
    parts = [
        receipt.model,
        receipt.route.instance_id,
        f"{receipt.total_ms:,.0f} ms" if receipt.total_ms >= 10 else f"{receipt.total_ms:.1f} ms",
        f"{usage.input_tokens} + {usage.output_tokens} tokens"
        if usage.output_tokens
        else f"{usage.input_tokens} tokens",
        _money(receipt.cost),
        CACHE_OUTCOMES.get(receipt.cache.outcome, ""),
        f"request {receipt.request_id}" if receipt.request_id else "",
    ]
    line = Text(" · ".join(part for part in parts if part), style="dim")
    if receipt.HasField("prefix_loss"):
        line.append(f"\n{loss_line(receipt.prefix_loss)}", style="yellow")
    for note in receipt.notes if with_notes else ():
        line.append(f"\nnote: {note}", style="yellow")
    return line


def _money(cost: common_pb2.Cost) -> str:
    saved = f", {dollars(cost.saved_microusd)} saved" if cost.saved_microusd else ""
    provider = cost.provider_saved_microusd
    by_itself = f", {dollars(provider)} saved by the provider's own cache" if provider else ""
    return f"{dollars(cost.paid_microusd)}{saved}{by_itself}"
