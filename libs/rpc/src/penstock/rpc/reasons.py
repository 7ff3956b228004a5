"""Every failure that crosses a service, and what follows from each: the one table.

A failure has a reason, which travels as `reason` of an item's status and of google.rpc.ErrorInfo.
The table says for each reason which gRPC code it has, where the same request may be tried again,
whether another model may serve it, whether a job may wait and try again, what it says of the
instance that it came from, and what a call that ends so is charged. Nobody decides by a code or by
a text.

A failure without a reason of ours (from gRPC itself, or from a newer service) is taken for the
general reason of its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from grpc import StatusCode as Code


class Retry(Enum):
    """Where the same request may be tried again at once."""

    NOWHERE = "nowhere"
    HERE = "here"
    """At the same place, which has mended what was wrong."""
    ELSEWHERE = "elsewhere"
    """At another instance of the same model: this one did not do the work."""
    IF_REPEATABLE = "if repeatable"
    """At another instance, for tasks that may be computed twice: this one may have done the
    work.
    """


class Verdict(Enum):
    """What a failure says of the instance that it came from."""

    NOTHING = "nothing"
    """The request, the caller or time was at fault."""
    BUSY = "busy"
    """The instance has more to do than it can take: it rests for as long as it says."""
    UNUSABLE = "unusable"
    """The operator has to mend something there (key, balance, model): it rests at once, and others
    serve.
    """
    SICK = "sick"
    """The instance answered with an error of its own, or broke off while it worked. The request may
    have caused that, so one request counts once however often it fails, and half of a fleet stays
    in use whatever is said of it.
    """
    GONE = "gone"
    """The instance did not answer at all, and takes nothing for a while."""


class Charge(Enum):
    """What a call is charged that ends so."""

    SAID = "said"
    """Its input and what was said, if anything was said; otherwise nothing."""
    SENT = "sent"
    """Its input and what was said, once it was sent to an instance: the work was or is being
    done.
    """


@dataclass(frozen=True, slots=True)
class Consequences:
    """A row of the table."""

    code: Code
    retry: Retry = Retry.NOWHERE
    other_model: bool = False
    """Whether the next model of the caller's chain may serve the call."""
    larger_model: bool = False
    """Whether of those models only one may that takes longer prompts than this one."""
    later: bool = False
    """Whether waiting may mend it: a job tries again."""
    verdict: Verdict = Verdict.NOTHING
    charge: Charge = Charge.SAID

    @property
    def overload(self) -> bool:
        """Whether it says, coming from an instance, that this has more to do than it can take."""
        return self.code in (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE)

    @property
    def gives_up(self) -> bool:
        """Whether nobody waits for the call any more: its caller or its run was cancelled."""
        return self.code is Code.CANCELLED


class Reason(StrEnum):
    """Why a call failed. The values are what travels; none is ever given another meaning."""

    # The general reason of each gRPC code.
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"

    # Choosing and reaching an instance.
    NO_MODEL = "NO_MODEL"
    """No instance serves the model."""
    CANNOT_SERVE = "CANNOT_SERVE"
    """Instances serve the model, and none is able to serve this request."""
    NO_INSTANCE = "NO_INSTANCE"
    """No instance of the model can take a request now."""
    SHED = "SHED"
    """The queue is longer than the call may wait, or room is kept for more urgent calls."""
    TRY_TIMED_OUT = "TRY_TIMED_OUT"
    """One try has used up its own time; the call has time left."""
    QUEUE_FULL = "QUEUE_FULL"
    """The instance's queue is full."""
    PEER_HUNG = "PEER_HUNG"
    """A process answers no ping: it is taken for dead until it is heard of again."""
    NOT_ATTACHED = "NOT_ATTACHED"
    """The batcher does not know the instance: it was started again, or the instance is new."""
    OWNER_GONE = "OWNER_GONE"
    """The batcher before the instance does not answer: another cell's, in whose place this cell's
    own is used, or that, in whose place none is.
    """
    INSTANCE_LEAVING = "INSTANCE_LEAVING"
    """The instance takes no more work."""
    NO_ANSWER = "NO_ANSWER"
    """The instance ended a batch without an answer for this call."""
    STREAM_CUT = "STREAM_CUT"
    """A stream ended before its answer did."""

    # Reuse.
    FOLLOWED_BROKE = "FOLLOWED_BROKE"
    """The identical request that this call waited for has failed."""

    # Limits and money.
    RATE_LIMITED = "RATE_LIMITED"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    NEVER_FITS = "NEVER_FITS"
    """The call is larger than a limit allows at any time."""
    NO_PRICE = "NO_PRICE"
    """A budget counts money and the model has no price."""
    DRAINED = "DRAINED"
    """An operator is letting the organisation run out."""
    REFUSED = "REFUSED"
    """A limit refuses the call for a reason that this router does not know yet."""
    LIMITS_UNAVAILABLE = "LIMITS_UNAVAILABLE"
    """The limiter or its store does not answer, and calls are refused without it."""
    COST_CEILING = "COST_CEILING"
    """The call may cost more than its caller allows for it."""
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    """The store of the ledger does not answer."""

    # Runs and jobs.
    RUN_CANCELLED = "RUN_CANCELLED"
    RUN_BUDGET_EXHAUSTED = "RUN_BUDGET_EXHAUSTED"
    """A limit of the run is reached; a started run is paused by that."""
    RUN_BUDGET_HELD = "RUN_BUDGET_HELD"
    """A started run's calls in flight hold what this one needs."""
    RUN_PAUSED = "RUN_PAUSED"
    """Somebody has paused the started run."""
    RUN_ENDED = "RUN_ENDED"
    RUN_DEADLINE = "RUN_DEADLINE"
    NO_STORE = "NO_STORE"
    """Jobs need a store, and none is configured or it does not answer."""
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    """A job has been tried as often as jobs are."""
    SUPERSEDED = "SUPERSEDED"
    """A later try of the same job has taken its place."""
    TOO_MANY_JOBS = "TOO_MANY_JOBS"
    """The organisation or the key has as many unended jobs as it may have, or as many bytes."""
    TOO_MANY_WATCHERS = "TOO_MANY_WATCHERS"
    """The key, or everybody, watches as many jobs at this router as they may."""

    # Hosted models: the caller's fault.
    UPSTREAM_REFUSED = "UPSTREAM_REFUSED"
    """The upstream refuses the request as it is."""
    UPSTREAM_TOO_LONG = "UPSTREAM_TOO_LONG"
    """The request is longer than the upstream's model takes."""
    UPSTREAM_FILTERED = "UPSTREAM_FILTERED"
    """The upstream's content filter refuses the request. No other model is asked, since that would
    be a way around the filter.
    """

    # Hosted models: the operator's fault.
    UPSTREAM_CREDENTIALS = "UPSTREAM_CREDENTIALS"
    """The upstream refuses the operator's key."""
    UPSTREAM_BALANCE = "UPSTREAM_BALANCE"
    """The operator's account at the upstream is out of money or quota."""
    UPSTREAM_NO_MODEL = "UPSTREAM_NO_MODEL"
    """The upstream does not know the model, or does not let the operator's key use it."""

    # Hosted models: overloaded, broken.
    UPSTREAM_RATE_LIMITED = "UPSTREAM_RATE_LIMITED"
    """The upstream limits the rate of requests or tokens."""
    UPSTREAM_OVERLOADED = "UPSTREAM_OVERLOADED"
    """The upstream has too much to do (503, 529)."""
    UPSTREAM_POOL_FULL = "UPSTREAM_POOL_FULL"
    """Every connection to the upstream is in use."""
    UPSTREAM_UNREACHABLE = "UPSTREAM_UNREACHABLE"
    UPSTREAM_SILENT = "UPSTREAM_SILENT"
    """The upstream took the request and has said nothing for longer than it may. It may have done
    the work, and bill it.
    """
    UPSTREAM_RESET = "UPSTREAM_RESET"
    """The connection broke after the request was sent."""
    UPSTREAM_ERROR = "UPSTREAM_ERROR"
    """The upstream has an error of its own: another 5xx, or an error inside its answer."""
    UPSTREAM_MALFORMED = "UPSTREAM_MALFORMED"
    """The upstream's answer is not what its protocol says."""
    UPSTREAM_TOO_LARGE = "UPSTREAM_TOO_LARGE"
    """The upstream's answer is larger than is taken."""


SICK = Verdict.SICK


def _caller(code: Code, **more: bool) -> Consequences:
    """The caller or the configuration must change something."""
    return Consequences(code, **more)  # type: ignore[arg-type]


def _gone(code: Code = Code.UNAVAILABLE) -> Consequences:
    """The instance did not answer: others are tried, and other models."""
    return Consequences(code, Retry.ELSEWHERE, True, later=True, verdict=Verdict.GONE)


def _broken(charge: Charge = Charge.SAID) -> Consequences:
    """The instance broke off or answered nonsense: others are tried, and other models."""
    return Consequences(
        Code.UNAVAILABLE, Retry.ELSEWHERE, True, later=True, verdict=SICK, charge=charge
    )


def _busy(code: Code) -> Consequences:
    """The instance has too much to do: others are tried, and other models."""
    return Consequences(code, Retry.ELSEWHERE, True, later=True, verdict=Verdict.BUSY)


def _operator() -> Consequences:
    """The operator must mend something at the instance: others are tried, and other models."""
    code = Code.FAILED_PRECONDITION
    return Consequences(code, Retry.ELSEWHERE, True, later=True, verdict=Verdict.UNUSABLE)


def _turned_away(code: Code, verdict: Verdict = Verdict.NOTHING) -> Consequences:
    """The instance did no work, for want of room: others are tried."""
    unavailable = code is Code.UNAVAILABLE
    return Consequences(code, Retry.ELSEWHERE, unavailable, later=True, verdict=verdict)


TABLE: Mapping[Reason, Consequences] = {
    Reason.CANCELLED: Consequences(Code.CANCELLED, later=True, charge=Charge.SENT),
    Reason.UNKNOWN: Consequences(Code.UNKNOWN, verdict=SICK),
    Reason.INVALID_ARGUMENT: _caller(Code.INVALID_ARGUMENT),
    Reason.DEADLINE_EXCEEDED: Consequences(
        Code.DEADLINE_EXCEEDED, Retry.IF_REPEATABLE, charge=Charge.SENT
    ),
    Reason.NOT_FOUND: _caller(Code.NOT_FOUND),
    Reason.ALREADY_EXISTS: _caller(Code.ALREADY_EXISTS),
    Reason.PERMISSION_DENIED: _caller(Code.PERMISSION_DENIED),
    Reason.RESOURCE_EXHAUSTED: Consequences(Code.RESOURCE_EXHAUSTED, later=True),
    Reason.FAILED_PRECONDITION: _caller(Code.FAILED_PRECONDITION),
    Reason.ABORTED: _caller(Code.ABORTED),
    Reason.OUT_OF_RANGE: _caller(Code.OUT_OF_RANGE),
    Reason.UNIMPLEMENTED: _caller(Code.UNIMPLEMENTED),
    Reason.INTERNAL: Consequences(Code.INTERNAL, verdict=SICK),
    Reason.UNAVAILABLE: _gone(),
    Reason.DATA_LOSS: Consequences(Code.DATA_LOSS, verdict=SICK),
    Reason.UNAUTHENTICATED: _caller(Code.UNAUTHENTICATED),
    Reason.NO_MODEL: Consequences(Code.NOT_FOUND, other_model=True, later=True),
    Reason.CANNOT_SERVE: _caller(Code.FAILED_PRECONDITION, other_model=True),
    Reason.NO_INSTANCE: Consequences(Code.UNAVAILABLE, other_model=True, later=True),
    Reason.SHED: Consequences(Code.RESOURCE_EXHAUSTED, other_model=True, later=True),
    Reason.TRY_TIMED_OUT: Consequences(
        Code.DEADLINE_EXCEEDED, Retry.IF_REPEATABLE, verdict=SICK, charge=Charge.SENT
    ),
    Reason.QUEUE_FULL: _turned_away(Code.RESOURCE_EXHAUSTED),
    Reason.PEER_HUNG: _gone(),
    Reason.NOT_ATTACHED: Consequences(Code.UNAVAILABLE, Retry.HERE, True, later=True),
    Reason.OWNER_GONE: Consequences(Code.UNAVAILABLE, Retry.HERE, True, later=True),
    Reason.INSTANCE_LEAVING: _turned_away(Code.UNAVAILABLE),
    Reason.NO_ANSWER: _broken(),
    Reason.STREAM_CUT: _broken(),
    Reason.FOLLOWED_BROKE: Consequences(Code.UNAVAILABLE, later=True),
    Reason.RATE_LIMITED: Consequences(Code.RESOURCE_EXHAUSTED, other_model=True, later=True),
    Reason.BUDGET_EXHAUSTED: _caller(Code.RESOURCE_EXHAUSTED, other_model=True),
    Reason.NEVER_FITS: _caller(Code.FAILED_PRECONDITION, other_model=True),
    Reason.NO_PRICE: _caller(Code.FAILED_PRECONDITION, other_model=True),
    Reason.DRAINED: _caller(Code.PERMISSION_DENIED),
    Reason.REFUSED: Consequences(Code.RESOURCE_EXHAUSTED, other_model=True, later=True),
    Reason.LIMITS_UNAVAILABLE: Consequences(Code.UNAVAILABLE, later=True),
    Reason.COST_CEILING: _caller(Code.RESOURCE_EXHAUSTED, other_model=True),
    Reason.STORE_UNAVAILABLE: Consequences(Code.UNAVAILABLE, later=True),
    Reason.RUN_CANCELLED: _caller(Code.CANCELLED),
    Reason.RUN_BUDGET_EXHAUSTED: _caller(Code.RESOURCE_EXHAUSTED),
    Reason.RUN_BUDGET_HELD: Consequences(Code.RESOURCE_EXHAUSTED, later=True),
    Reason.RUN_PAUSED: _caller(Code.FAILED_PRECONDITION),
    Reason.RUN_ENDED: _caller(Code.FAILED_PRECONDITION),
    Reason.RUN_DEADLINE: _caller(Code.DEADLINE_EXCEEDED),
    Reason.NO_STORE: Consequences(Code.UNAVAILABLE, later=True),
    Reason.ATTEMPTS_EXHAUSTED: _caller(Code.UNAVAILABLE),
    Reason.SUPERSEDED: _caller(Code.ABORTED),
    Reason.TOO_MANY_JOBS: _caller(Code.RESOURCE_EXHAUSTED),
    Reason.TOO_MANY_WATCHERS: _caller(Code.RESOURCE_EXHAUSTED),
    Reason.UPSTREAM_REFUSED: _caller(Code.INVALID_ARGUMENT),
    Reason.UPSTREAM_TOO_LONG: _caller(Code.INVALID_ARGUMENT, other_model=True, larger_model=True),
    Reason.UPSTREAM_FILTERED: _caller(Code.INVALID_ARGUMENT),
    Reason.UPSTREAM_CREDENTIALS: _operator(),
    Reason.UPSTREAM_BALANCE: _operator(),
    Reason.UPSTREAM_NO_MODEL: _operator(),
    Reason.UPSTREAM_RATE_LIMITED: _busy(Code.RESOURCE_EXHAUSTED),
    Reason.UPSTREAM_OVERLOADED: _busy(Code.UNAVAILABLE),
    Reason.UPSTREAM_POOL_FULL: _turned_away(Code.UNAVAILABLE, Verdict.GONE),
    Reason.UPSTREAM_UNREACHABLE: _gone(),
    Reason.UPSTREAM_SILENT: _broken(Charge.SENT),
    Reason.UPSTREAM_RESET: _broken(),
    Reason.UPSTREAM_ERROR: _broken(),
    Reason.UPSTREAM_MALFORMED: _broken(),
    Reason.UPSTREAM_TOO_LARGE: _broken(),
}

_KNOWN = {reason.value: reason for reason in Reason}
_OF_CODE = {code: Reason[code.name] for code in Code if code is not Code.OK}


def reason_of(name: str, code: Code) -> Reason:
    """The reason that a failure has by what travelled: its name, or else its code's general one."""
    return _KNOWN.get(name) or _OF_CODE.get(code, Reason.UNKNOWN)
