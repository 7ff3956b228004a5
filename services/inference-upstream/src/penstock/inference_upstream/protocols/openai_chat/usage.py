"""The tokens that a chat completion reports. Pure: JSON values in, usage out."""

from __future__ import annotations

from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.inference_upstream.protocols.json_values import SHAPE_ERRORS, count_of, object_of
from penstock.service.purity import pure


@pure
def reported_usage(usage: Any) -> common_pb2.Usage | None:
    """Tokens by price tier; None where the report is missing or makes no sense.

    Some providers leave reasoning tokens out of `completion_tokens`. `total_tokens` decides: what
    it has beyond prompt and completion is output, unless it is exactly the cached input, which
    some leave out of `prompt_tokens`. Without a total, more reasoning than completion tells the
    same.
    """
    try:
        return _tokens(usage)
    except SHAPE_ERRORS:
        return None


def _tokens(usage: dict[str, Any]) -> common_pb2.Usage | None:
    prompt = count_of(usage["prompt_tokens"])
    completion = count_of(usage.get("completion_tokens"))
    if not prompt:
        return None  # there is no request without input: it was not counted
    reasoning = count_of(
        object_of(usage.get("completion_tokens_details")).get("reasoning_tokens")
        or usage.get("reasoning_tokens")
    )
    cached, written = _cached(usage), _written(usage)
    missing = count_of(usage.get("total_tokens") or 0) - prompt - completion
    if missing > 0 and missing == cached:
        prompt += missing
    elif missing > 0:
        completion += missing
        reasoning = max(reasoning, missing)
    elif reasoning > completion:
        completion += reasoning
    return common_pb2.Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cached_input_tokens=min(cached, prompt),
        written_input_tokens=min(written, prompt),
        reasoning_tokens=reasoning,
    )


def _cached(usage: dict[str, Any]) -> int:
    """Tokens read from a prefix cache, as OpenAI, DeepSeek, Moonshot or Anthropic name them."""
    return count_of(
        object_of(usage.get("prompt_tokens_details")).get("cached_tokens")
        or usage.get("prompt_cache_hit_tokens")
        or usage.get("cached_tokens")
        or usage.get("cache_read_input_tokens")
    )


def _written(usage: dict[str, Any]) -> int:
    """Tokens written to a prefix cache, as OpenAI or Anthropic name them."""
    return count_of(
        object_of(usage.get("prompt_tokens_details")).get("cache_write_tokens")
        or usage.get("cache_creation_input_tokens")
    )
