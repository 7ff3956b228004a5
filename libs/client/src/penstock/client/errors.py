"""The errors of the client: one class for each thing that a caller can do about a failure.

A table maps gRPC codes to classes.
"""

from __future__ import annotations

import grpc
from penstock.rpc.errors import Fault, failed_precondition, invalid, unavailable


class PenstockError(Exception):
    """A call failed.

    Attributes:
        message: why it failed, without the advice.
        code: name of the gRPC code.
        field: the field of the request to correct; empty where it is none.
        reason: a stable text for programs.
        retry_after_s: seconds to wait before a retry; 0: unknown.
        run: the started run that refused the call: its state, what is left; else None.
        advice: what to do; the same for all errors of a class.
    """

    advice = "read the message; if the error persists, show it to whoever operates Penstock"

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.message} ({self.advice})")
        self._fault = fault
        self.message = fault.message
        self.code = fault.code.name
        self.field = fault.field
        self.reason = str(fault.reason)
        self.retry_after_s = fault.retry_after_s
        self.run = fault.run

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes, for instance out of a pool of workers."""
        return type(self), (self._fault,)


class BadRequest(PenstockError):
    """The request is invalid."""

    advice = "correct the named field; the unchanged request fails again"


class Refused(PenstockError):
    """The API key is missing, unknown or not allowed to do this."""

    advice = "check the API key and its permissions"


class NotFound(PenstockError):
    """The request names something that does not exist."""

    advice = "ask for one that exists; list_models() shows the models"


class Busy(PenstockError):
    """A rate, a budget or a queue is used up."""

    advice = "wait retry_after_s, lower the priority, or raise the limit"


class DeadlineExceeded(PenstockError):
    """The answer was not ready in time."""

    advice = "give the call more time with run=client.run(timeout_s=...), or make it smaller"


class Unavailable(PenstockError):
    """No router or instance could serve the call, retries included."""

    advice = (
        "check that a router runs at this address, then retry; list_models() shows the models "
        "that are ready"
    )


class Cancelled(PenstockError):
    """The call or its run was cancelled."""

    advice = "nothing to do: the cancellation was requested"


class NotOpen(PenstockError):
    """The client was closed, or it belongs to another event loop or process."""

    advice = "open a client here: every event loop and every process needs its own"


_CLASSES: dict[grpc.StatusCode, type[PenstockError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
    grpc.StatusCode.FAILED_PRECONDITION: BadRequest,
    grpc.StatusCode.OUT_OF_RANGE: BadRequest,
    grpc.StatusCode.UNIMPLEMENTED: BadRequest,
    grpc.StatusCode.UNAUTHENTICATED: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Busy,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Cancelled,
}


def from_fault(fault: Fault) -> PenstockError:
    """The error that a caller gets for a fault."""
    return _CLASSES.get(fault.code, PenstockError)(fault)


def from_fault_at(address: str, fault: Fault) -> PenstockError:
    """The error for a fault of the server at an address; an UNAVAILABLE names the address."""
    error = from_fault(fault)
    if error.code != "UNAVAILABLE":
        return error
    message = f"{address}: {fault.message}"
    return from_fault(unavailable(message, retry_after_s=fault.retry_after_s, reason=fault.reason))


def bad_request(field: str, message: str) -> BadRequest:
    """The error for an argument that cannot be sent."""
    return BadRequest(invalid(field, message))


def not_open(message: str) -> NotOpen:
    """The error for a client that cannot be used here."""
    return NotOpen(failed_precondition("", message))
