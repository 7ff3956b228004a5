"""The tokens that a message reports. Pure: JSON values in, usage out."""

from __future__ import annotations

from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.inference_upstream.protocols.json_values import SHAPE_ERRORS, count_of, object_of
from penstock.service.purity import pure


@pure
def reported_usage(usage: dict[str, Any]) -> common_pb2.Usage | None:
    """Tokens by price tier; None where the report is missing or makes no sense.

    The protocol's `input_tokens` are those that were neither read from the cache nor written to it;
    ours are all of them.
    """
    try:
        cached = count_of(usage.get("cache_read_input_tokens"))
        written = count_of(usage.get("cache_creation_input_tokens"))
        whole = count_of(usage["input_tokens"]) + cached + written
        details = object_of(usage.get("output_tokens_details"))
        tokens = common_pb2.Usage(
            input_tokens=whole,
            output_tokens=count_of(usage["output_tokens"]),
            cached_input_tokens=cached,
            written_input_tokens=written,
            reasoning_tokens=count_of(details.get("thinking_tokens")),
        )
    except SHAPE_ERRORS:
        return None
    return tokens if whole else None
