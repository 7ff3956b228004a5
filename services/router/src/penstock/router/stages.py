"""The stages of the path that others plug in: admission before, look-up around, shaping of prompts.

The path: admit → look up → shape → choose → group → compute. What a stage decides is a value of the
types below; `settle` and `store` run after the answer has left. What every call makes is a named
tuple, since a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from penstock.api.common.v1 import common_pb2, prefix_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call, Principal
from penstock.tasks.answers import whole_chunk

Deferred = Coroutine[Any, Any, None] | None
"""What is still to be done once an answer has left; None where that is nothing."""


async def perform(deferred: Deferred) -> None:
    """Do what is still to be done, if anything."""
    if deferred is not None:
        await deferred


class Admitted(NamedTuple):
    """A call that may go on."""

    ticket: object = None
    """The stage's own."""
    notes: tuple[str, ...] = ()
    max_output_tokens: int = 0
    """Length that was paid for where the caller left it open; 0 leaves it open."""


class Spent(NamedTuple):
    """What a call that brought no answer has cost all the same."""

    model: str
    input_tokens: int
    output_tokens: int
    lookup_microusd: int = 0
    """What asking the cache has cost, where the call ends with this."""
    is_hedge: bool = False
    """Whether it was one of two tries side by side, and the other one was taken."""


class Hit(NamedTuple):
    """An answer that may be reused."""

    result: inference_pb2.TaskResult
    cache: common_pb2.CacheReceipt
    savings: tuple[common_pb2.Saving, ...] = ()
    model: str = ""
    """The model that gave it, where that is not the one asked for."""
    notes: tuple[str, ...] = ()
    refresh: object = None
    """The ticket under which a new answer is owed, where this one is stale."""

    def whole_chunk(self) -> inference_pb2.GenerateChunk:
        """The answer, of a conversation, as one piece."""
        return whole_chunk(self.result.generate)


class Following(Protocol):
    """An answer in flight that others may wait for."""

    def chunks(self) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        """Its pieces from the beginning, each as it comes, until the end."""
        ...

    async def abandoned(self) -> None:
        """Wait until nobody follows it any more, though it is not there yet."""
        ...


class Miss(NamedTuple):
    """Nothing to reuse. Whoever holds it owes the stage one `store` with the ticket."""

    ticket: object
    cache: common_pb2.CacheReceipt | None = None
    notes: tuple[str, ...] = ()
    savings: tuple[common_pb2.Saving, ...] = ()
    """What asking cost."""
    following: Following | None = None
    """Those who wait for the answer that is owed; None where nobody may."""


class Bypass(NamedTuple):
    """Nothing was looked up, and nothing is owed."""

    cache: common_pb2.CacheReceipt | None = None
    notes: tuple[str, ...] = ()


LookUp = Hit | Miss | Bypass


class AdmissionStage(Protocol):
    """May this caller spend this now?"""

    def admit_now(self, call: Call, request: ResolvedRequest) -> Admitted | None:
        """Let a call go on where nothing has to be waited for; None where `admit` must be asked.

        Raises:
            Fault: what its caller is told.
        """
        ...

    async def admit(self, call: Call, request: ResolvedRequest) -> Admitted:
        """Let a call go on.

        Raises:
            Fault: what its caller is told: a reason, and when to try again.
        """
        ...

    async def hold_more(self, admitted: Admitted, request: ResolvedRequest) -> None:
        """Let one more send of the same answer go, beside what was admitted for it.

        Raises:
            Fault: what its caller is told.
        """
        ...

    async def extend(self, admitted: Admitted, output_tokens: int) -> None:
        """A stream has said so much.

        Raises:
            Fault: no more is paid for; the stream ends.
        """
        ...

    def settle(
        self, admitted: Admitted, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Deferred:
        """Called once for each admitted call, with its receipt, or with what it cost all the same.

        Books what it can, and returns what has to be waited for.
        """
        ...


class LookUpStage(Protocol):
    """Is there an answer that may be reused? An identical request in flight is waited for."""

    def near_hit(self, call: Call, request: ResolvedRequest) -> Hit | None:
        """An answer that is in this process; None where `look_up` must be asked."""
        ...

    async def look_up(self, call: Call, request: ResolvedRequest, request_id: str) -> LookUp:
        """Find an answer. A cache that is gone is a Miss with a note, never a failure."""
        ...

    def follow_stream(
        self, call: Call, request: ResolvedRequest
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Hit, None]:
        """Pieces of an identical request in flight, as they come, and then its whole answer;
        nothing where there is none. Without the answer at the end, that request has failed.
        """
        ...

    def publish(self, ticket: object, chunk: inference_pb2.GenerateChunk) -> None:
        """Pass a piece of the answer that a Miss is fetching to those who follow it."""
        ...

    def store(
        self,
        ticket: object,
        result: inference_pb2.TaskResult | None,
        receipt: common_pb2.Receipt | None,
    ) -> Deferred:
        """Called once for each Miss; None says that no answer came, and lets whoever waits for it
        go on alone. Returns what has to be waited for.
        """
        ...

    async def feedback(
        self, principal: Principal, request_id: str, correct: bool, note: str
    ) -> bool:
        """Take a caller's verdict on an answer; True when a cached entry was quarantined."""
        ...


class SentPrompt(Protocol):
    """A prompt on its way to a provider, beside the one before it in its conversation."""

    @property
    def share(self) -> float:
        """Part of the prompt that the one before it began with, 0 to 1, estimated."""
        ...

    def at_model(self, model: str) -> SentPrompt:
        """The same prompt, sent to another model after all."""
        ...

    def answered(
        self, request_id: str, instance_id: str, usage: common_pb2.Usage
    ) -> prefix_pb2.PrefixLoss | None:
        """Take what the provider reports of the prompt; what it lost of the prefix cache, None
        where it lost nothing.
        """
        ...


class DirectCall(Protocol):
    """The same call without Penstock: its prompt as it came, and a provider's prefix cache that
    only such prompts have filled.
    """

    def usage(self, reported: common_pb2.Usage) -> common_pb2.Usage:
        """What it would have used, from what the call has used, or the answer that is reused."""
        ...


@dataclass(frozen=True, slots=True)
class Shaped:
    """A prompt that costs less and says the same, and what is known of it."""

    task: inference_pb2.Task
    savings: tuple[common_pb2.Saving, ...] = ()
    notes: tuple[str, ...] = ()
    prompt: SentPrompt | None = None
    """The prompt as it is sent; None where nobody looked at it."""
    decisions: tuple[str, ...] = ()
    """Lines for the trace."""
    not_for: tuple[str, ...] = ()
    """Models that may follow and have a rule of their own: they get the task as it came."""
    direct: DirectCall | None = None
    """The same call without Penstock; None where that costs the same, or nobody knows."""


class ShapeStage(Protocol):
    """Can the prompt say the same in fewer tokens?"""

    async def shape(
        self, call: Call, request: ResolvedRequest, models: Sequence[str]
    ) -> Shaped | None:
        """Shape a conversation for the first of the models, the one that was chosen; the others may
        follow. None leaves it as it is. Never fails.
        """
        ...

    def reused(self, call: Call, request: ResolvedRequest) -> DirectCall | None:
        """A conversation is answered from memory: the same call without Penstock. Never fails."""
        ...


class Losses(Protocol):
    """What is being lost at present without failing calls."""

    def notes(self) -> tuple[str, ...]: ...


class OpenAdmission:
    """Admits everybody: no limiter is configured."""

    def admit_now(self, call: Call, request: ResolvedRequest) -> Admitted | None:
        return ADMITTED

    async def admit(self, call: Call, request: ResolvedRequest) -> Admitted:
        return ADMITTED

    async def hold_more(self, admitted: Admitted, request: ResolvedRequest) -> None:
        return None

    async def extend(self, admitted: Admitted, output_tokens: int) -> None:
        return None

    def settle(
        self, admitted: Admitted, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Deferred:
        return None


class NoLookUp:
    """Remembers nothing: no cache is configured."""

    def near_hit(self, call: Call, request: ResolvedRequest) -> Hit | None:
        return None

    async def look_up(self, call: Call, request: ResolvedRequest, request_id: str) -> LookUp:
        return NOTHING_LOOKED_UP

    async def follow_stream(
        self, call: Call, request: ResolvedRequest
    ) -> AsyncGenerator[inference_pb2.GenerateChunk | Hit, None]:
        nothing: tuple[inference_pb2.GenerateChunk, ...] = ()
        for chunk in nothing:
            yield chunk

    def publish(self, ticket: object, chunk: inference_pb2.GenerateChunk) -> None:
        return None

    def store(
        self,
        ticket: object,
        result: inference_pb2.TaskResult | None,
        receipt: common_pb2.Receipt | None,
    ) -> Deferred:
        return None

    async def feedback(
        self, principal: Principal, request_id: str, correct: bool, note: str
    ) -> bool:
        return False


class NoShape:
    """Leaves every prompt as it is."""

    async def shape(
        self, call: Call, request: ResolvedRequest, models: Sequence[str]
    ) -> Shaped | None:
        return None

    def reused(self, call: Call, request: ResolvedRequest) -> DirectCall | None:
        return None


ADMITTED = Admitted()
NOTHING_LOOKED_UP = Bypass()
