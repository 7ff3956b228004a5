"""The places in the path where others plug in: admission before, recall around, shaping of the
prompt. Interfaces and pass-throughs only.

The path: admit → recall → shape → choose → group → compute. `settle` and `store` run after the
answer has left. What every call makes is a named tuple: a frozen dataclass takes three times as
long to make.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.router.requests.work import Work
from penstock.rpc.call import Call, Principal

Later = Coroutine[Any, Any, None] | None
"""What is still to be done once an answer has left; None where that is nothing."""
PROMPT_OPTIMISER = "prompt_optimiser"
"""The technique of a shaped prompt's saving."""
PREFIX_NOTE = "prefix: "
"""How the note begins that says what share of a prompt its conversation has sent before, to the
same model.
"""


async def finish(later: Later) -> None:
    """Do what is still to be done, if anything."""
    if later is not None:
        await later


class Admitted(NamedTuple):
    """A call that may go on. `token` is the stage's own; `notes` go into the receipt."""

    token: object = None
    notes: tuple[str, ...] = ()
    max_output_tokens: int = 0
    """Length that was paid for where the caller left it open; 0 leaves it open."""


class Spent(NamedTuple):
    """What a call that brought no answer has cost all the same."""

    model: str
    input_tokens: int
    output_tokens: int


class Found(NamedTuple):
    """An answer that may be reused; `cache` and `savings` go into the receipt."""

    result: inference_pb2.TaskResult
    cache: common_pb2.CacheReceipt
    savings: tuple[common_pb2.Saving, ...] = ()
    model: str = ""
    notes: tuple[str, ...] = ()
    refresh: NotFound | None = None
    """The answer is stale, and whoever serves it owes the stage a new one, after it has left."""


class NotFound(NamedTuple):
    """Nothing to reuse.

    Whoever holds it owes the stage one `store` with this token, answer or none. `savings`: what
    asking cost.
    """

    token: object = None
    cache: common_pb2.CacheReceipt | None = None
    notes: tuple[str, ...] = ()
    savings: tuple[common_pb2.Saving, ...] = ()


class AdmissionStage(Protocol):
    """May this caller spend this now?"""

    def at_once(self, call: Call, options: router_pb2.CallOptions, work: Work) -> Admitted | None:
        """Let the call go on where nothing has to be waited for; None, and nothing done, where
        `admit` must be asked.
        """
        ...

    async def admit(self, call: Call, options: router_pb2.CallOptions, work: Work) -> Admitted:
        """Let the call go on, or raise the Fault that the caller is told (RESOURCE_EXHAUSTED with a
        reason and a time to wait).
        """
        ...

    async def extend(self, admitted: Admitted, output_tokens: int) -> None:
        """A stream has said so much; raise the Fault that ends it where no more is paid for."""
        ...

    def settle(
        self, admitted: Admitted, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Later:
        """Called once for each admitted call; without a receipt, `spent` says what it cost all the
        same. Books what it can and gives what has to be waited for, to be done after the answer has
        left.
        """
        ...


class RecallStage(Protocol):
    """Is there an answer that may be reused?

    The same request in flight counts as one: the look-up waits for its answer.
    """

    def at_hand(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        model: str,
        digest: bytes = b"",
    ) -> Found | None:
        """An answer that is there without waiting; None, and nothing owed, where `look_up` must be
        asked.
        """
        ...

    async def look_up(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        model: str,
        request_id: str,
    ) -> Found | NotFound:
        """Find an answer. Must not fail because the cache is gone: that is NotFound with a note."""
        ...

    def follow_stream(
        self, call: Call, options: router_pb2.CallOptions, task: inference_pb2.Task, model: str
    ) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        """Pieces of the same request in flight, as they come; nothing where there is none.

        The look-up that follows has the answer.
        """
        ...

    def said(self, token: object, chunk: inference_pb2.GenerateChunk) -> None:
        """A piece of the answer that a NotFound is fetching, for those who follow it."""
        ...

    def store(
        self,
        token: object,
        result: inference_pb2.TaskResult | None,
        receipt: common_pb2.Receipt | None,
    ) -> Later:
        """Called once for each NotFound; None says that no answer came, and lets whoever waits for
        it go on alone. Gives what has to be waited for, to be done after the answer has left.
        """
        ...

    async def feedback(
        self, principal: Principal, request_id: str, correct: bool, note: str
    ) -> bool:
        """A caller's verdict on an answer; True when a cached entry was quarantined."""
        ...


@dataclass(frozen=True, slots=True)
class Shaped:
    """A task that costs less and says the same; `savings` go into the receipt, `decisions` and
    `prefix_share` into the trace.
    """

    task: inference_pb2.Task
    savings: tuple[common_pb2.Saving, ...] = ()
    notes: tuple[str, ...] = ()
    prefix_share: float | None = None
    """Estimated share of the prompt that a provider can read from its prefix cache, 0 to 1; None
    where nobody looked.
    """
    decisions: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()
    """Models that may follow and whose prompts have a rule of their own: they get the task as it
    came.
    """


class ShapeStage(Protocol):
    """Can the prompt say the same in fewer tokens?"""

    async def shape(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        models: Sequence[str],
    ) -> Shaped:
        """Shape a task for the first of the models, the one that was chosen; the others may follow.

        Never fails.
        """
        ...


class OpenAdmission:
    """Admits everybody: no limiter is configured."""

    def at_once(self, call: Call, options: router_pb2.CallOptions, work: Work) -> Admitted | None:
        return ADMITTED

    async def admit(self, call: Call, options: router_pb2.CallOptions, work: Work) -> Admitted:
        return ADMITTED

    async def extend(self, admitted: Admitted, output_tokens: int) -> None:
        return None

    def settle(
        self, admitted: Admitted, receipt: common_pb2.Receipt | None, spent: Spent | None
    ) -> Later:
        return None


class NoRecall:
    """Remembers nothing: no cache is configured."""

    def at_hand(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        model: str,
        digest: bytes = b"",
    ) -> Found | None:
        return None

    async def look_up(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        model: str,
        request_id: str,
    ) -> Found | NotFound:
        return NOT_FOUND

    async def follow_stream(
        self, call: Call, options: router_pb2.CallOptions, task: inference_pb2.Task, model: str
    ) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        nothing: tuple[inference_pb2.GenerateChunk, ...] = ()
        for chunk in nothing:
            yield chunk

    def said(self, token: object, chunk: inference_pb2.GenerateChunk) -> None:
        return None

    def store(
        self,
        token: object,
        result: inference_pb2.TaskResult | None,
        receipt: common_pb2.Receipt | None,
    ) -> Later:
        return None

    async def feedback(
        self, principal: Principal, request_id: str, correct: bool, note: str
    ) -> bool:
        return False


class NoShape:
    """Leaves every task as it is."""

    async def shape(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        models: Sequence[str],
    ) -> Shaped:
        return Shaped(task)


ADMITTED = Admitted()
NOT_FOUND = NotFound()
