"""What every protocol module gives: a request from a task, and a result from an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.switches import Switches


class Target(NamedTuple):
    """The model that a request is for."""

    model: str
    """Its name at the upstream."""
    switches: Switches
    modalities: frozenset[str] = frozenset({"text"})
    """What its turns may hold: `text`, `image`, `file`."""
    max_output_tokens: int = 0
    """Its largest answer; 0 where it is not known."""
    resumes: bool = False
    """Whether the server continues an assistant's turn that ends the conversation."""


class AnswerStream(Protocol):
    """A streamed answer. Feed it pieces of the body until it is done or the body has ended."""

    @property
    def is_done(self) -> bool:
        """Whether the provider has marked the end."""
        ...

    def feed(self, piece: bytes) -> Sequence[pb.GenerateChunk]:
        """What the piece adds to the answer.

        Raises:
            Fault: the provider reports an error, or what it sends is not the protocol.
        """
        ...

    def end(self) -> tuple[Sequence[pb.GenerateChunk], pb.TaskResult]:
        """The last chunks, the last of which ends the stream, and the whole result.

        Raises:
            Fault: as `feed`; STREAM_CUT where the answer has not ended.
        """
        ...


class Wire(Protocol):
    """A protocol. Implementations are values without state, and pure."""

    path: str
    """Where requests go, after the base address."""
    number: pb.Wire
    """How the contract names it."""

    def request(self, task: pb.GenerateTask, target: Target, *, stream: bool) -> dict[str, Any]:
        """The body of a request.

        Raises:
            Fault: INVALID_ARGUMENT naming a field that the model does not take, or that should be
                JSON and is not.
        """
        ...

    def parse(self, body: bytes, task: pb.GenerateTask, target: Target) -> pb.TaskResult:
        """The result of a whole answer.

        Raises:
            Fault: as `AnswerStream.feed`.
        """
        ...

    def stream(self, task: pb.GenerateTask, target: Target) -> AnswerStream:
        """A streamed answer, at its beginning."""
        ...
