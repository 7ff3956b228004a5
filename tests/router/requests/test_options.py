"""Options of a call: what is refused, by field, and what just passes."""

from __future__ import annotations

import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.requests.resolved import MAX_NAME_BYTES, check_options
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason

LONGEST = "x" * MAX_NAME_BYTES
LONGEST_OF_WIDE = "\u65e5" * (MAX_NAME_BYTES // 3)
"""126 bytes in 42 characters."""


def cache(**policy: object) -> pb.CallOptions:
    return pb.CallOptions(cache=pb.CachePolicy(**policy))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "field", "why"),
    [
        (pb.CallOptions(run_id=LONGEST + "x"), "options.run_id", "longer than 128 bytes"),
        (pb.CallOptions(step=LONGEST + "x"), "options.step", "longer than 128 bytes"),
        (pb.CallOptions(affinity_key=LONGEST + "x"), "options.affinity_key", "longer than 128"),
        (pb.CallOptions(run_id=LONGEST_OF_WIDE + "\u65e5"), "options.run_id", "longer than 128"),
        (pb.CallOptions(priority=5), "options.priority", "5 is not a priority; use 0 to 4"),  # type: ignore[arg-type]
        (pb.CallOptions(priority=-1), "options.priority", "-1 is not a priority"),  # type: ignore[arg-type]
        (pb.CallOptions(max_cost_microusd=-1), "options.max_cost_microusd", "is negative"),
        (pb.CallOptions(min_quality=-0.1), "options.min_quality", "between 0 and 1"),
        (pb.CallOptions(min_quality=1.1), "options.min_quality", "between 0 and 1"),
        (pb.CallOptions(min_quality=float("nan")), "options.min_quality", "between 0 and 1"),
        (cache(max_error_rate=-0.1), "options.cache.max_error_rate", "between 0 and 1"),
        (cache(max_error_rate=1.1), "options.cache.max_error_rate", "between 0 and 1"),
        (cache(max_error_rate=float("nan")), "options.cache.max_error_rate", "between 0 and 1"),
        (cache(max_age_ms=-1), "options.cache.max_age_ms", "is negative"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_its_field(
    options: pb.CallOptions, field: str, why: str
) -> None:
    with pytest.raises(Fault) as refused:
        check_options(options)
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, field)
    assert refused.value.message.startswith(f"{field}: ")
    assert why in refused.value.message


@pytest.mark.parametrize(
    "options",
    [
        pb.CallOptions(),
        pb.CallOptions(run_id=LONGEST, step=LONGEST, affinity_key=LONGEST),
        pb.CallOptions(run_id=LONGEST_OF_WIDE),
        pb.CallOptions(priority=4),  # type: ignore[arg-type]
        pb.CallOptions(max_cost_microusd=0),
        pb.CallOptions(min_quality=0.0),
        pb.CallOptions(min_quality=1.0),
        cache(max_error_rate=0.0, max_age_ms=0),
        cache(max_error_rate=1.0, max_age_ms=1),
    ],
)
def test_options_at_their_bounds_pass(options: pb.CallOptions) -> None:
    check_options(options)
