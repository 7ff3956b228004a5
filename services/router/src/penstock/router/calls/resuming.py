"""Going on with an answer whose instance went away: what the caller has heard becomes the turn that
another instance continues. Values only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.api.inference.v1 import inference_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.router.instances.backends import Computed
from penstock.tasks.kind import BYTES_PER_TOKEN

RESUMES = "resumes"
"""The capability of an instance that continues an assistant's turn which ends a conversation,
instead of answering it.
"""


@dataclass
class Delivered:
    """What of an answer has reached the caller."""

    deltas: list[str] = field(default_factory=list)
    begun: bool = False
    whole: bool = True
    """False once something was delivered that text cannot hold, such as a tool call, or that only
    its provider can go on with.
    """

    def add(self, chunk: pb.GenerateChunk) -> None:
        """One more piece has left. A keep-alive has nothing that cannot be said again."""
        if chunk.keep_alive and not chunk.wire_piece:
            return
        self.begun = True
        is_text = not (chunk.tool_calls or chunk.reasoning or chunk.refusal or chunk.logprobs)
        is_ours = not chunk.wire_piece  # Nobody else goes on in a provider's own bytes.
        self.whole = self.whole and is_text and is_ours and not chunk.finish_reason
        if chunk.delta:
            self.deltas.append(chunk.delta)

    @property
    def text(self) -> str:
        """The text delivered so far."""
        return "".join(self.deltas)


def continued(task: pb.Task, text: str) -> pb.Task:
    """The task of saying the rest."""
    rest = pb.Task()
    rest.CopyFrom(task)
    rest.generate.ClearField("wire_request")  # It does not hold what was said.
    rest.generate.messages.add(role=inference_pb2.ROLE_ASSISTANT, content=text)
    if rest.generate.max_tokens:
        said_tokens = len(text.encode()) // BYTES_PER_TOKEN
        rest.generate.max_tokens = max(1, rest.generate.max_tokens - said_tokens)
    return rest


def joined(piece: Computed, text: str, input_tokens: int) -> Computed:
    """A piece whose result, if any, is the whole answer; what the part before has used is an
    estimate, for its instance is gone.
    """
    if piece.result is None:
        return piece
    whole = pb.TaskResult()
    whole.CopyFrom(piece.result)
    whole.generate.message.content = text + piece.result.generate.message.content
    whole.usage.input_tokens += input_tokens
    whole.usage.output_tokens += len(text.encode()) // BYTES_PER_TOKEN
    whole.usage.estimated = True
    return piece._replace(result=whole)
