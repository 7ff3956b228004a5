"""Options of a call: what must be right in them, by field."""

from __future__ import annotations

from penstock.api.router.v1 import router_pb2
from penstock.rpc.errors import invalid

MAX_NAME_BYTES = 128
NAMES = ("run_id", "step", "affinity_key")
PRIORITIES = frozenset(range(5))


def check_options(options: router_pb2.CallOptions) -> None:
    """Raise INVALID_ARGUMENT for the first option that cannot be."""
    # No UTF-8 byte is more than a character's fourth part, so short names need not be encoded.
    if len(options.run_id) + len(options.step) + len(options.affinity_key) > MAX_NAME_BYTES // 4:
        _check_names(options)
    if options.priority not in PRIORITIES:
        raise invalid("options.priority", f"{options.priority} is not a priority; use 0 to 4")
    if options.HasField("max_cost_microusd") and options.max_cost_microusd < 0:
        raise invalid("options.max_cost_microusd", "is negative")
    if not 0 <= options.min_quality <= 1:
        raise invalid("options.min_quality", "must lie between 0 and 1")
    if options.HasField("cache"):
        _check_cache(options.cache)


def _check_names(options: router_pb2.CallOptions) -> None:
    for name in NAMES:
        if len(getattr(options, name).encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
            raise invalid(f"options.{name}", f"is longer than {MAX_NAME_BYTES} bytes")


def _check_cache(policy: router_pb2.CachePolicy) -> None:
    if policy.HasField("max_error_rate") and not 0 <= policy.max_error_rate <= 1:
        raise invalid("options.cache.max_error_rate", "must lie between 0 and 1")
    if policy.max_age_ms < 0:
        raise invalid("options.cache.max_age_ms", "is negative")
