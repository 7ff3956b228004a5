"""What can go wrong for a caller, a class for each thing to do about it.

One table from gRPC codes.
"""

from __future__ import annotations

import grpc
from penstock.rpc.errors import Fault, failed_precondition, invalid


class PenstockError(Exception):
    """A call failed.

    `field` names what to mend, `reason` is stable text for programs, `retry_after_s` when to come
    back (0: unknown).
    """

    advice = "look at the message; if it stays, show it to who runs Penstock"

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.message} ({self.advice})")
        self._fault = fault
        self.code = fault.code.name
        self.field = fault.field
        self.reason = str(fault.reason)
        self.retry_after_s = fault.retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes, out of a pool of workers for one."""
        return type(self), (self._fault,)


class BadRequest(PenstockError):
    """The request cannot be served as it is."""

    advice = "mend the named field; sending it again unchanged fails again"


class Refused(PenstockError):
    """The key is missing, unknown or may not do this."""

    advice = "check the API key and what it may do"


class NotFound(PenstockError):
    """What the request names does not exist."""

    advice = "ask for one that exists; list_models() shows the models"


class Busy(PenstockError):
    """A rate, a budget or a queue is used up."""

    advice = "wait retry_after_s, lower the priority, or raise the limit"


class DeadlineExceeded(PenstockError):
    """The time was up before the answer was there."""

    advice = "give the call more time with run=client.run(timeout_s=...), or make it smaller"


class Unavailable(PenstockError):
    """Nothing could serve the call now, retries included."""

    advice = (
        "see that a router runs at this address, then try again; list_models() shows what is ready"
    )


class Cancelled(PenstockError):
    """The call or its run was cancelled."""

    advice = "nothing to do: it was asked for"


class NotOpen(PenstockError):
    """The client cannot be used here: it was closed, or it belongs to another event loop or
    process.
    """

    advice = "open one here: every event loop and every process has its own"


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


def of_fault(fault: Fault) -> PenstockError:
    """The error that a caller sees for a fault."""
    return _CLASSES.get(fault.code, PenstockError)(fault)


def bad(field: str, message: str) -> BadRequest:
    """What the caller gave cannot be sent."""
    return BadRequest(invalid(field, message))


def not_open(message: str) -> NotOpen:
    """The client is not open here."""
    return NotOpen(failed_precondition("", message))
