"""The router's failures as those of an HTTP edge. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from grpc import StatusCode
from penstock.edge.wire import BadRequest, Failure, FailureKind
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.purity import pure

KINDS: Mapping[StatusCode, FailureKind] = {
    StatusCode.INVALID_ARGUMENT: FailureKind.INVALID,
    StatusCode.FAILED_PRECONDITION: FailureKind.INVALID,
    StatusCode.OUT_OF_RANGE: FailureKind.INVALID,
    StatusCode.UNAUTHENTICATED: FailureKind.UNAUTHENTICATED,
    StatusCode.PERMISSION_DENIED: FailureKind.FORBIDDEN,
    StatusCode.NOT_FOUND: FailureKind.NOT_FOUND,
    StatusCode.ALREADY_EXISTS: FailureKind.CONFLICT,
    StatusCode.ABORTED: FailureKind.CONFLICT,
    StatusCode.RESOURCE_EXHAUSTED: FailureKind.RATE_LIMITED,
    StatusCode.CANCELLED: FailureKind.CLIENT_LEFT,
    StatusCode.UNIMPLEMENTED: FailureKind.UNIMPLEMENTED,
    StatusCode.UNAVAILABLE: FailureKind.OVERLOADED,
    StatusCode.DEADLINE_EXCEEDED: FailureKind.TIMED_OUT,
}
"""Others are INTERNAL."""
NO_BUDGET = {
    Reason.BUDGET_EXHAUSTED,
    Reason.RUN_BUDGET_EXHAUSTED,
    Reason.COST_CEILING,
    Reason.NEVER_FITS,
    Reason.DRAINED,
}
"""Money or a share of it is used up: to try again does not help."""
FIELDS = {"texts": "input"}
"""Fields of the contract by other names in the wires."""
NEVER_RETRIED = {FailureKind.NO_BUDGET, FailureKind.TIMED_OUT, FailureKind.INTERNAL}
"""The router has tried what there was to try; a client that repeats it multiplies the calls."""


@pure
def failure_of(fault: Fault) -> Failure:
    """A failure of the router, as a client is told of it."""
    kind = KINDS.get(fault.code, FailureKind.INTERNAL)
    if fault.reason in NO_BUDGET:
        kind = FailureKind.NO_BUDGET
    may_retry = False if kind in NEVER_RETRIED else None
    said = fault.provider_error
    return Failure(
        kind,
        _with_wire_field(fault),
        _param(fault.field),
        code="not_found" if fault.reason is Reason.NOT_FOUND else "",
        retry_after_s=fault.retry_after_s,
        may_retry=may_retry,
        providers=(said.status, said.body) if said is not None else None,
    )


@pure
def refusal_of(error: BadRequest) -> Failure:
    """A request that a wire cannot take."""
    return Failure(FailureKind.INVALID, error.message, error.param, error.code)


def _with_wire_field(fault: Fault) -> str:
    """The words; where they begin with the field, it is that of the wires."""
    rest = fault.message.removeprefix(fault.field) if fault.field else fault.message
    return fault.message if rest == fault.message else _param(fault.field) + rest


def _param(field: str) -> str:
    """A field of the contract as the wires name it."""
    if field in FIELDS:
        return FIELDS[field]
    return field.removeprefix("task.").removeprefix("options.")
