"""One call on its way through the router, its receipt, and what comes of it. Values only.

The receipt has one writer: the path says what happened; notes are put in order, money is added up
(`receipt_cost.py`) and the message is made when the answer is there.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.prices.prices import Prices
from penstock.router.calls.receipt_cost import write_cost
from penstock.router.requests.resolved import ResolvedRequest, digest_of
from penstock.router.stages import (
    Admitted,
    Bypass,
    DirectCall,
    Hit,
    LookUp,
    SentPrompt,
    Shaped,
    Spent,
)
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, consequences_of
from penstock.rpc.reasons import Charge
from penstock.rpc.spans import Span
from penstock.tasks.kind import BYTES_PER_TOKEN

HEAD_MESSAGES = 2
"""Messages by which a conversation is known again: its instructions and its first question."""


class Outcome(NamedTuple):
    """A finished call."""

    result: inference_pb2.TaskResult
    receipt: common_pb2.Receipt


class Route(NamedTuple):
    """Who served a call, and why."""

    instance_id: str
    reason: str
    score: float
    attempts: int
    candidates: int
    """Instances that were looked at, those that were left out included."""


@dataclass(slots=True)
class CallState:
    """What is known of a call so far."""

    request: ResolvedRequest
    call: Call
    """As it came."""
    span: Span
    """Around the whole way; `span.call` is handed to the next hop."""
    began_s: float
    receipt: ReceiptBuilder
    spare_models: list[str]
    """Models still to be tried when the present one cannot serve."""
    tried: set[str] = field(default_factory=set)
    """Instances that were given this call."""
    attempts: int = 0
    admitted: Admitted | None = None
    """What is held of the limits for the next send, or for the one under way."""
    sent: bool = False
    """Whether a try was sent under what is held."""
    spent_microusd: int = 0
    """What earlier tries may be billed that brought no answer."""
    handed_over: bool = False
    """Whether the answer, and what is held for it, belong to those who follow it by now."""
    fault: Fault | None = None
    """What the last try on the present model ended in."""
    streams: bool = False
    """Whether the answer leaves piece by piece, over a time in which an instance may go."""
    sent_tokens: int = 0
    """Input tokens, as estimated, of earlier sends whose answer the present one goes on with."""
    said_bytes: int = 0
    """UTF-8 bytes of the pieces of a stream that were passed on."""
    prefix_blocks: tuple[Hashable, ...] | None = None
    """Chained hashes of the prompt, once they have been needed."""
    unshaped: inference_pb2.Task | None = None
    """The task as it came, where the prompt was shaped."""
    unshaped_for: tuple[str, ...] = ()
    """Spare models that get the task as it came: another rule applies to their prompts."""

    def go_on_with(self, model: str, fault: Fault) -> None:
        """Turn to a spare model because of a failure, with the prompt as it came where its own rule
        is another.
        """
        request = self.request
        self.receipt.note(f"fallback from {request.model} to {model}: {fault.reason}")
        task = request.task
        if self.unshaped is not None and model in self.unshaped_for:
            task = self.unshaped
        self.prefix_blocks = self.fault = None
        self.receipt.go_on_with(model, shaped=task is request.task)
        self.tried.clear()
        self.request = request.with_task(task)._replace(model=model)


def spent_by(state: CallState, error: BaseException | None) -> Spent | None:
    """What a call that failed has cost: its input and what it said, once it said something or the
    work may still be done; nothing when it was refused. Without an error it was done in vain.
    """
    sent = error is None or consequences_of(error).charge is Charge.SENT
    if not state.said_bytes and not (sent and state.sent):
        return None
    request = state.request
    said_tokens = state.said_bytes // BYTES_PER_TOKEN
    input_tokens = state.sent_tokens + request.estimate.input_tokens
    return Spent(request.model, input_tokens, said_tokens)


def spent_at_end(state: CallState, error: BaseException | None) -> Spent | None:
    """What a call that ends without an answer has cost since its last settlement, asking the cache
    included.
    """
    spent, lookup_microusd = spent_by(state, error), state.receipt.lookup_microusd
    if not lookup_microusd:
        return spent
    spent = spent or Spent(state.request.model, 0, 0)
    return spent._replace(lookup_microusd=lookup_microusd)


def said_bytes(chunk: inference_pb2.GenerateChunk) -> int:
    """UTF-8 bytes of what a piece of an answer says, reasoning and tool calls included."""
    texts = [chunk.delta, chunk.refusal]
    texts += [call.name + call.arguments_json for call in chunk.tool_calls]
    texts += [block.text for block in chunk.reasoning]
    return sum(len(text.encode(errors="surrogatepass")) for text in texts)


def cause_of(state: CallState) -> Hashable:
    """What tells a request from others where it may be at fault: its caller and how it begins, so
    that a conversation that grows is one request.
    """
    task = state.request.task
    if not state.request.kind.conversational:
        return state.call.principal.organisation, digest_of(task)
    head = inference_pb2.GenerateTask(messages=task.generate.messages[:HEAD_MESSAGES])
    return state.call.principal.organisation, digest_of(inference_pb2.Task(generate=head))


class ReceiptBuilder:
    """Collects what is known of one call."""

    __slots__ = (
        "_cache",
        "_direct",
        "_hedged",
        "_notes",
        "_prompt",
        "_savings",
        "_shaped_notes",
        "_shaped_savings",
        "model",
        "request_id",
        "run_id",
        "trace_id",
    )

    def __init__(self, request_id: str, trace_id: str, run_id: str, model: str) -> None:
        self.request_id, self.trace_id, self.run_id = request_id, trace_id, run_id
        self.model = model
        self._notes: list[str] = []
        self._savings: list[common_pb2.Saving] = []
        self._shaped_notes: tuple[str, ...] = ()
        self._prompt: SentPrompt | None = None
        self._shaped_savings: tuple[common_pb2.Saving, ...] = ()
        self._cache: common_pb2.CacheReceipt | None = None
        self._hedged = False
        self._direct: DirectCall | None = None

    @property
    def lookup_microusd(self) -> int:
        """What asking the cache has cost."""
        return self._cache.cost_microusd if self._cache is not None else 0

    def note(self, *texts: str) -> None:
        """Say something that is worth knowing and is no failure."""
        self._notes.extend(texts)

    def looked_up(self, found: LookUp) -> None:
        """The look-up has decided."""
        self._cache = found.cache
        self._notes.extend(found.notes)
        if not isinstance(found, Bypass):
            self._savings.extend(found.savings)
        if isinstance(found, Hit) and found.model:
            self.model = found.model

    def shaped(self, shaped: Shaped) -> None:
        """The prompt was looked at, and perhaps shaped."""
        self._shaped_notes, self._prompt = shaped.notes, shaped.prompt
        self._shaped_savings = shaped.savings
        self._direct = shaped.direct

    def beside(self, direct: DirectCall | None) -> None:
        """The same call without Penstock, of an answer that is reused."""
        self._direct = direct

    def go_on_with(self, model: str, *, shaped: bool) -> None:
        """A spare model serves; `shaped`: with the prompt as it was shaped, if it was."""
        if self._prompt is not None:
            self._prompt = self._prompt.at_model(model) if shaped else None
        if not shaped:
            unchanged = f"prompt: as it was sent, {model} has another rule"
            self._shaped_notes, self._shaped_savings = (unchanged,), ()
        self.model = model
        self._direct = None

    def hedged(self) -> None:
        """A second instance was asked beside a slow first one."""
        self._hedged = True

    def finished(
        self,
        result: inference_pb2.TaskResult,
        prices: Prices,
        total_ms: float,
        route: Route | None = None,
        batch: common_pb2.BatchReceipt | None = None,
    ) -> common_pb2.Receipt:
        """The receipt of an answer; without a route it was reused, and costs nothing itself."""
        receipt = common_pb2.Receipt(
            request_id=self.request_id,
            trace_id=self.trace_id,
            run_id=self.run_id,
            model=self.model,
            revision=result.revision,
            compute_ms=result.compute_ms,
            total_ms=total_ms,
            usage=result.usage,
            notes=[*self._notes, *self._shaped_notes],
            savings=(*self._savings, *self._shaped_savings),
            cache=self._cache,
            batch=batch,
        )
        if route is not None:
            self._write_route(receipt.route, route)
            self._write_prefix_loss(receipt, route)
        direct = self._direct.usage(receipt.usage) if self._direct is not None else None
        shaped_microusd = sum(saving.microusd for saving in self._shaped_savings)
        write_cost(receipt, prices, direct, shaped_microusd, reused=route is None)
        return receipt

    def _write_prefix_loss(self, receipt: common_pb2.Receipt, route: Route) -> None:
        if self._prompt is None:
            return
        loss = self._prompt.answered(self.request_id, route.instance_id, receipt.usage)
        if loss is not None:
            receipt.prefix_loss.CopyFrom(loss)

    def _write_route(self, message: common_pb2.RouteReceipt, route: Route) -> None:
        message.instance_id, message.reason = route.instance_id, route.reason
        message.score, message.attempts = route.score, route.attempts
        message.candidates, message.hedged = route.candidates, self._hedged
