"""The one table of errors to gRPC status, in both directions.

An exception's text never leaves the process.
"""

from __future__ import annotations

import asyncio
import logging
import secrets

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from penstock.api.common.v1 import common_pb2

log = logging.getLogger(__name__)

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
OK = common_pb2.ItemStatus(code=0)
DOMAIN = "penstock"


class Fault(Exception):
    """A failure that the caller is told of: a gRPC code, what happened and what to do, the field to
    mend, when to try again.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        field: str = "",
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after_s = retry_after_s


def invalid(field: str, message: str) -> Fault:
    """The caller must mend `field`."""
    return Fault(
        grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {message}" if field else message, field=field
    )


def not_found(field: str, message: str) -> Fault:
    """What `field` names does not exist."""
    return Fault(
        grpc.StatusCode.NOT_FOUND, f"{field}: {message}" if field else message, field=field
    )


def unauthenticated(message: str) -> Fault:
    """Nobody known is calling."""
    return Fault(grpc.StatusCode.UNAUTHENTICATED, message)


def denied(message: str, reason: str = "") -> Fault:
    """Somebody known may not do this."""
    return Fault(grpc.StatusCode.PERMISSION_DENIED, message, reason=reason)


def exhausted(message: str, reason: str = "", retry_after_s: float = 0.0) -> Fault:
    """A rate, a budget or a queue is used up; with `retry_after_s` it will refill."""
    return Fault(
        grpc.StatusCode.RESOURCE_EXHAUSTED, message, reason=reason, retry_after_s=retry_after_s
    )


def unavailable(message: str, retry_after_s: float = 0.0, reason: str = "") -> Fault:
    """Nothing can serve this now; another instance or another moment may."""
    return Fault(grpc.StatusCode.UNAVAILABLE, message, reason=reason, retry_after_s=retry_after_s)


def deadline_exceeded(message: str) -> Fault:
    """The time was up before the answer was there."""
    return Fault(grpc.StatusCode.DEADLINE_EXCEEDED, message)


def failed_precondition(field: str, message: str) -> Fault:
    """The system is in a state in which this cannot be done, and trying again does not help."""
    return Fault(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"{field}: {message}" if field else message,
        field=field,
    )


def internal(message: str) -> Fault:
    """Our own fault, described in words that may leave."""
    return Fault(grpc.StatusCode.INTERNAL, message)


def to_fault(error: BaseException) -> Fault:
    """Any exception as a Fault.

    An unknown one becomes INTERNAL with a random id; its text is logged under that id only.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, asyncio.CancelledError):
        return Fault(grpc.StatusCode.CANCELLED, "cancelled by the caller")
    if isinstance(error, TimeoutError):
        return deadline_exceeded("the time was up before the answer was there")
    if isinstance(error, grpc.aio.AioRpcError):
        return _of_rpc(error)
    incident = secrets.token_hex(6)
    log.error("incident %s", incident, exc_info=error)
    return Fault(
        grpc.StatusCode.INTERNAL, f"internal error; its log entry is {incident}", reason="INCIDENT"
    )


def _of_rpc(error: grpc.aio.AioRpcError) -> Fault:
    """A failed plain call to a service of ours: its code stands, and the details that were sent
    with it.
    """
    code = error.code()
    packed = next(
        (
            value
            for key, value in error.trailing_metadata() or ()
            if key == "grpc-status-details-bin"
        ),
        None,
    )
    if packed is None or not isinstance(packed, bytes):
        return Fault(code, error.details() or code.value[1])
    return _of_status(status_pb2.Status.FromString(packed))


def _of_status(status: status_pb2.Status) -> Fault:
    fault = Fault(CODES[status.code], status.message)
    for detail in status.details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            fault.field = bad.field_violations[0].field if bad.field_violations else ""
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            fault.retry_after_s = delay.seconds + delay.nanos / 1e9
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            fault.reason = error_details_pb2.ErrorInfo.FromString(detail.value).reason
    return fault


def to_item_status(error: BaseException) -> common_pb2.ItemStatus:
    """The status of an item that failed with this exception."""
    fault = to_fault(error)
    return common_pb2.ItemStatus(
        code=fault.code.value[0],
        message=fault.message,
        reason=fault.reason,
        field=fault.field,
        retry_after_ms=round(fault.retry_after_s * 1000),
    )


def from_item_status(status: common_pb2.ItemStatus) -> Fault:
    """The fault that an item's status tells of."""
    return Fault(
        CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        status.message,
        reason=status.reason,
        field=status.field,
        retry_after_s=status.retry_after_ms / 1000.0,
    )


def to_rpc_status(fault: Fault) -> status_pb2.Status:
    """google.rpc.Status with BadRequest, RetryInfo and ErrorInfo where the fault has them, for
    plain calls.
    """
    details = []
    if fault.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=fault.field, description=fault.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if fault.retry_after_s > 0:
        seconds, rest = divmod(fault.retry_after_s, 1)
        delay = duration_pb2.Duration(seconds=int(seconds), nanos=int(rest * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if fault.reason:
        details.append(error_details_pb2.ErrorInfo(reason=fault.reason, domain=DOMAIN))
    status = status_pb2.Status(code=fault.code.value[0], message=fault.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def to_fault_code(error: BaseException) -> str:
    """The name of the code that `to_fault` would give, without logging anything."""
    if isinstance(error, Fault):
        return str(error.code.name)
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED"
    if isinstance(error, TimeoutError):
        return "DEADLINE_EXCEEDED"
    return "INTERNAL"
