"""What every wire of the edge is: a protocol of HTTP clients, as pure functions.

A wire reads a request's bytes into a task of the contract and writes answers, events and errors as
its clients expect them. It does no I/O; `app` reads and sends for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb

Headers = Mapping[str, str]
"""A request's headers; names in lower case."""


class BadRequest(Exception):
    """A request that cannot be taken, in words for the caller.

    Attributes:
        message: what is wrong and what to do.
        param: the field, such as `messages[2].content`; empty for the whole body.
        code: a word of the wire for programs; empty for none.
    """

    def __init__(self, message: str, param: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class FailureKind(Enum):
    """What went wrong, as all wires tell it apart; the value is the HTTP status of most."""

    INVALID = 400
    UNAUTHENTICATED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    TIMED_OUT_READING = 408
    CONFLICT = 409
    TOO_LARGE = 413
    RATE_LIMITED = 429
    NO_BUDGET = 402
    NO_SUCH_METHOD = 405
    CLIENT_LEFT = 499
    INTERNAL = 500
    UNIMPLEMENTED = 501
    OVERLOADED = 503
    TIMED_OUT = 504


@dataclass(frozen=True)
class Failure:
    """A failure as a client is told of it.

    Attributes:
        kind: what went wrong.
        message: in words.
        param: the field at fault; empty for none.
        code: a word for programs; empty leaves it to the wire.
        retry_after_s: when to try again; 0 for unknown.
        may_retry: whether a client should; None leaves it to the client's own rules.
        providers: status and body that a provider of the client's wire gave, which then stand in
            place of ours; the status is 200 for events inside a stream.
        allowed: the methods that the path takes, where it does not take the request's.
    """

    kind: FailureKind
    message: str
    param: str = ""
    code: str = ""
    retry_after_s: float = 0.0
    may_retry: bool | None = None
    providers: tuple[int, bytes] | None = None
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A request for an answer.

    Attributes:
        task: the conversation.
        model: that it is for; empty for the task's default.
        streams: whether the answer is to come as events.
        ignored: fields of the request that have no effect.
        shows_usage: whether a stream ends with the counts of tokens.
        affinity: what keeps like calls together at one instance; empty for the run.
        metadata: the request's own pairs of texts, for callers that cannot set headers.
    """

    task: pb.GenerateTask
    model: str
    streams: bool = False
    ignored: tuple[str, ...] = ()
    shows_usage: bool = True
    affinity: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """What an answer is called.

    Attributes:
        number: random hexadecimal digits, from which a wire makes its identifiers.
        created_s: Unix time.
        model: that was asked for.
    """

    number: str
    created_s: int
    model: str


class Events(Protocol):
    """An answer as server-sent events; every method gives the bytes of whole frames."""

    def start(self) -> bytes:
        """Before anything is known of the answer."""
        ...

    def piece(self, chunk: pb.GenerateChunk) -> bytes:
        """What a chunk adds; empty for nothing."""
        ...

    def end(self, usage: common_pb2.Usage) -> bytes:
        """The end of a whole answer."""
        ...

    def failure(self, failure: Failure) -> bytes:
        """The end of a stream that failed."""
        ...

    def keep_alive(self) -> bytes:
        """Says that the answer is still worked at."""
        ...


class Wire(Protocol):
    """A protocol for conversations."""

    def read(self, body: bytes, headers: Headers) -> Asked:
        """The request.

        Raises:
            BadRequest: naming the field that is wrong or cannot be honoured.
        """
        ...

    def whole(
        self,
        result: pb.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> bytes:
        """The body of a finished answer."""
        ...

    def events(self, asked: Asked, identity: Identity) -> Events:
        """The events of an answer."""
        ...

    def error(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        """Status and body of a failure."""
        ...
