"""One call on its way through the router, and what comes of it. Values only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.otel import attributes as semantics
from penstock.router.requests.requests import Asked
from penstock.router.stages import PREFIX_NOTE, PROMPT_OPTIMISER
from penstock.rpc.call import Call
from penstock.rpc.spans import Span


class Outcome(NamedTuple):
    """A finished call."""

    result: inference_pb2.TaskResult
    receipt: common_pb2.Receipt


@dataclass
class Trip:
    """What is known of a call so far."""

    asked: Asked
    call: Call
    span: Span
    began_s: float
    receipt: common_pb2.Receipt = field(default_factory=common_pb2.Receipt)
    tried: set[str] = field(default_factory=set)
    """Instances that have been given this call."""
    attempts: int = 0
    streams: bool = False
    """Whether the answer leaves piece by piece, over a time in which an instance may go."""
    said_bytes: int = 0
    """Size of the pieces of a stream that have been passed on."""
    prefix_blocks: tuple[Hashable, ...] | None = None
    """Chained hashes of the prompt, once they have been needed."""
    spare_models: list[str] = field(default_factory=list)
    """Models still to be tried when the present one cannot serve."""
    as_sent: Mapping[str, inference_pb2.Task] = field(default_factory=dict)
    """The task as it came, for spare models whose prompts are shaped by another rule than the one
    that was applied.
    """

    def go_on_with(self, model: str) -> None:
        """Turn to a spare model, with the prompt as it came where its own rule would not have
        shaped it so.
        """
        notes = [note for note in self.receipt.notes if not note.startswith(PREFIX_NOTE)]
        if len(notes) < len(self.receipt.notes):
            del self.receipt.notes[:]
            self.receipt.notes.extend(
                [*notes, f"{PREFIX_NOTE}nothing is known of what {model} was sent before"]
            )
            self.span.set(semantics.PROMPT_PREFIX_SHARE, 0.0)
        task = self.as_sent.get(model, self.asked.task)
        if task is not self.asked.task:
            kept = [
                saving for saving in self.receipt.savings if saving.technique != PROMPT_OPTIMISER
            ]
            del self.receipt.savings[:]
            self.receipt.savings.extend(kept)
            self.receipt.notes.append(f"prompt: as it was sent, {model} has another rule")
            self.prefix_blocks = None
        self.asked = self.asked._replace(
            model=model, task=task, work=self.asked.work._replace(model=model)
        )
