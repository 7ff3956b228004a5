"""Failures as they are raised here and as they travel: exceptions, item statuses, gRPC statuses.

What follows from a failure stands in the table of `reasons`. An exception's text never leaves the
process unless it was written for the caller.
"""

from __future__ import annotations

import asyncio
import logging
import secrets

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from penstock.api.common.v1 import common_pb2, run_pb2
from penstock.rpc.reasons import TABLE, Consequences, Reason, reason_of

log = logging.getLogger(__name__)

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
OK = common_pb2.ItemStatus(code=0)
DOMAIN = "penstock"


class Fault(Exception):
    """A failure that the caller is told of: why, in words that may leave, and what to mend or when
    to try again; what a provider said, where that is for the caller; and the started run that
    refuses a call.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field: str = "",
        retry_after_s: float = 0.0,
        provider_error: common_pb2.ProviderError | None = None,
        run: run_pb2.Run | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        self.provider_error = provider_error
        self.run = run

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC code that the caller gets."""
        return TABLE[self.reason].code

    @property
    def consequences(self) -> Consequences:
        """What follows from it."""
        return TABLE[self.reason]

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickled, (to_item_status(self).SerializeToString(),)


def _unpickled(packed: bytes) -> Fault:
    return from_item_status(common_pb2.ItemStatus.FromString(packed))


def invalid(field: str, message: str, reason: Reason = Reason.INVALID_ARGUMENT) -> Fault:
    """The caller must mend `field`."""
    return Fault(reason, f"{field}: {message}" if field else message, field=field)


def not_found(field: str, message: str, reason: Reason = Reason.NOT_FOUND) -> Fault:
    """What `field` names does not exist."""
    return Fault(reason, f"{field}: {message}" if field else message, field=field)


def failed_precondition(
    field: str, message: str, reason: Reason = Reason.FAILED_PRECONDITION
) -> Fault:
    """The system is in a state in which this cannot be done, and trying again does not help."""
    return Fault(reason, f"{field}: {message}" if field else message, field=field)


def unauthenticated(message: str) -> Fault:
    """The caller is not known."""
    return Fault(Reason.UNAUTHENTICATED, message)


def denied(message: str, reason: Reason = Reason.PERMISSION_DENIED) -> Fault:
    """The caller is known and may not do this."""
    return Fault(reason, message)


def exhausted(
    message: str, *, reason: Reason = Reason.RESOURCE_EXHAUSTED, retry_after_s: float = 0.0
) -> Fault:
    """A rate, a budget or a queue is used up; with `retry_after_s` it will refill."""
    return Fault(reason, message, retry_after_s=retry_after_s)


def unavailable(
    message: str, *, reason: Reason = Reason.UNAVAILABLE, retry_after_s: float = 0.0
) -> Fault:
    """Nothing can serve this now; another instance or another moment may."""
    return Fault(reason, message, retry_after_s=retry_after_s)


def deadline_exceeded(message: str) -> Fault:
    """The time was up before the answer was there."""
    return Fault(Reason.DEADLINE_EXCEEDED, message)


def unimplemented(message: str) -> Fault:
    """This service does not do that."""
    return Fault(Reason.UNIMPLEMENTED, message)


def internal(message: str) -> Fault:
    """An error of ours, described in words that may leave."""
    return Fault(Reason.INTERNAL, message)


def consequences_of(error: BaseException) -> Consequences:
    """What follows from a call that ended so, without a word in the log."""
    if isinstance(error, Fault):
        return error.consequences
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return TABLE[Reason.CANCELLED]
    if isinstance(error, TimeoutError):
        return TABLE[Reason.DEADLINE_EXCEEDED]
    return TABLE[Reason.INTERNAL]


def to_fault(error: BaseException) -> Fault:
    """Any exception as a Fault.

    One that is not ours becomes INTERNAL with a random id; its text is logged under that id only.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, asyncio.CancelledError):
        return Fault(Reason.CANCELLED, "cancelled by the caller")
    if isinstance(error, TimeoutError):
        return deadline_exceeded("the deadline passed before the answer was there")
    if isinstance(error, grpc.aio.AioRpcError):
        return _of_rpc(error)
    entry = secrets.token_hex(6)
    log.error("unexpected error, told to the caller as log entry %s", entry, exc_info=error)
    return internal(f"internal error; its log entry is {entry}")


def _of_rpc(error: grpc.aio.AioRpcError) -> Fault:
    """A failed plain call to a service of ours: its code stands, with the details sent with it."""
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
        return Fault(reason_of("", code), error.details() or code.value[1])
    return _of_status(status_pb2.Status.FromString(packed))


def _of_status(status: status_pb2.Status) -> Fault:
    name, field, retry_after_s, said, run = "", "", 0.0, None, None
    for detail in status.details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            field = bad.field_violations[0].field if bad.field_violations else ""
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after_s = delay.seconds + delay.nanos / 1e9
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            name = error_details_pb2.ErrorInfo.FromString(detail.value).reason
        elif detail.Is(common_pb2.ProviderError.DESCRIPTOR):
            said = common_pb2.ProviderError.FromString(detail.value)
        elif detail.Is(run_pb2.Run.DESCRIPTOR):
            run = run_pb2.Run.FromString(detail.value)
    return Fault(
        reason_of(name, CODES[status.code]),
        status.message,
        field=field,
        retry_after_s=retry_after_s,
        provider_error=said,
        run=run,
    )


def to_item_status(error: BaseException) -> common_pb2.ItemStatus:
    """The status of an item that failed with this exception."""
    fault = to_fault(error)
    return common_pb2.ItemStatus(
        code=fault.code.value[0],
        message=fault.message,
        reason=fault.reason,
        field=fault.field,
        retry_after_ms=round(fault.retry_after_s * 1000),
        provider_error=fault.provider_error,
        run=fault.run,
    )


def from_item_status(status: common_pb2.ItemStatus) -> Fault:
    """The fault that an item's status tells of."""
    code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return Fault(
        reason_of(status.reason, code),
        status.message,
        field=status.field,
        retry_after_s=status.retry_after_ms / 1000.0,
        provider_error=status.provider_error if status.HasField("provider_error") else None,
        run=status.run if status.HasField("run") else None,
    )


def to_rpc_status(fault: Fault) -> status_pb2.Status:
    """google.rpc.Status with ErrorInfo, and with BadRequest, RetryInfo, ProviderError and Run where
    they say something.
    """
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=fault.reason, domain=DOMAIN)]
    if fault.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=fault.field, description=fault.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if fault.retry_after_s > 0:
        seconds, rest = divmod(fault.retry_after_s, 1)
        delay = duration_pb2.Duration(seconds=int(seconds), nanos=int(rest * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if fault.provider_error is not None:
        details.append(fault.provider_error)
    if fault.run is not None:
        details.append(fault.run)
    status = status_pb2.Status(code=fault.code.value[0], message=fault.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def released(error: BaseException) -> Fault:
    """The fault of a failure that has been handled, without the calls that it came through.

    A frame that raises what it holds in a variable is a cycle, and grpc.aio keeps what ended a call
    in another one: either keeps the request alive until the collector comes by, and some hundred
    failures of large requests are gigabytes.
    """
    fault = to_fault(error)
    seen: BaseException | None = error
    while seen is not None:
        behind = seen.__cause__ or seen.__context__
        seen.__traceback__ = seen.__cause__ = seen.__context__ = None
        seen = behind
    return fault.with_traceback(None)
