"""Pruning of tools by the local embedder: what `penstock.prompts.tool_pruning` decides, with what
it needs, and what is said of it.

Called in worker threads only: embedding the tools of a conversation's first prompt takes some
milliseconds each. What was computed is kept by digests, no text of it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from penstock.api.inference.v1 import inference_pb2
from penstock.prompts.conversation import (
    Conversation,
    Decision,
    OptimisedPrompt,
    TokenCounter,
    ToolSpec,
    estimate_tokens,
)
from penstock.prompts.selection import Bm25Index
from penstock.prompts.tool_pruning import Asked, Called, Pruned, PruningPolicy, Step, prune
from penstock.prompts.tool_ranking import probabilities, text_to_embed, word_counts
from penstock.router.prompts.passages import LocalEmbedder
from penstock.service.bounded_map import BoundedMap
from penstock.tasks.answers import text_of

TOOL_PRUNING = "tool_pruning"
"""Technique and transform: tools were left out of a prompt."""
QUESTIONS_KEPT = 2_048
"""User turns, each with a set of tools, whose probabilities are at hand."""
NAMES_SHOWN = 64
"""Names of tools left out that a note has."""


@dataclass(frozen=True, slots=True)
class PrunedPrompt:
    """What pruning decided for a prompt.

    Attributes:
        prompt: as it is to be sent.
        left_out: names of the tools left out; empty in a dry run.
        note: for the receipt; empty where nothing was left out.
    """

    prompt: OptimisedPrompt
    left_out: tuple[str, ...] = ()
    note: str = ""


class ToolPruner:
    """Prunes tools with one embedder; where that cannot be used, nothing is left out."""

    def __init__(self, embedder: LocalEmbedder, questions_kept: int = QUESTIONS_KEPT) -> None:
        self._embedder = embedder
        self._known: BoundedMap[bytes, Sequence[float]] = BoundedMap(questions_kept)
        self._one_at_a_time = threading.Lock()

    def prune(
        self,
        task: inference_pb2.GenerateTask,
        prompt: OptimisedPrompt,
        policy: PruningPolicy,
        count: TokenCounter | None,
    ) -> PrunedPrompt:
        """Leave tools out of a prompt.

        Args:
            task: as it came.
            prompt: shaped so far.
            policy: what may be left out.
            count: the model's tokenizer; None: tokens are estimated.
        """
        tools = prompt.conversation.tools
        asked = _Probabilities(self, tools)
        pruned = prune(tools, steps_of(task), task.tool_choice.functions, asked, policy)
        if self._embedder.given_up:
            return PrunedPrompt(prompt, note="tools: none left out, the embedder cannot be used")
        if not isinstance(pruned, Pruned):
            return PrunedPrompt(_decided(prompt, pruned.reason))
        saved = tool_tokens(tools, count) - tool_tokens(pruned.kept, count)
        reason = f"{len(pruned.left_out)} of {len(tools)} tools left out"
        conversation = replace(prompt.conversation, tools=pruned.kept)
        sent = _decided(prompt, reason, conversation, saved)
        note = left_out_note(pruned.left_out, len(tools), saved) if pruned.left_out else ""
        return PrunedPrompt(sent, pruned.left_out, note)

    def probabilities(self, tools: Sequence[ToolSpec], question: str) -> Sequence[float]:
        """The probability of each tool to be the one that the question needs."""
        key = _digest([question, *_texts(tools)])
        with self._one_at_a_time:
            known = self._known.get(key)
        if known is None:
            similarities = self._embedder(question, [text_to_embed(tool) for tool in tools])
            word_scores = Bm25Index([word_counts(tool) for tool in tools]).scores(question)
            known = probabilities(similarities, word_scores)
            if not self._embedder.given_up:
                with self._one_at_a_time:
                    self._known.put(key, known)
        return known


@dataclass(frozen=True, slots=True)
class _Probabilities:
    """The `Probabilities` of one prompt's tools."""

    pruner: ToolPruner
    tools: tuple[ToolSpec, ...]

    def __call__(self, question: str) -> Sequence[float]:
        return self.pruner.probabilities(self.tools, question)


def steps_of(task: inference_pb2.GenerateTask) -> list[Step]:
    """The turns of a task that its tools depend on."""
    steps: list[Step] = []
    for message in task.messages:
        if message.role == inference_pb2.ROLE_USER:
            steps.append(Asked(text_of(message)))
        elif message.tool_calls:
            steps.append(Called(tuple(call.name for call in message.tool_calls)))
    return steps


def left_out_note(names: Sequence[str], of: int, saved_tokens: int) -> str:
    """What a receipt says of tools that were left out."""
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"tools: {len(names)} of {of} left out, {saved_tokens} tokens: {shown}"


def tool_tokens(tools: Iterable[ToolSpec], count: TokenCounter | None) -> int:
    """Tokens of tools."""
    counted = count or estimate_tokens
    return sum(counted(text) for text in _texts(tools) if text)


def _texts(tools: Iterable[ToolSpec]) -> list[str]:
    return [text for tool in tools for text in (tool.name, tool.description, tool.parameters)]


def _decided(
    prompt: OptimisedPrompt,
    reason: str,
    conversation: Conversation | None = None,
    saved_tokens: int = 0,
) -> OptimisedPrompt:
    """The prompt with the decision on its tools."""
    sent = prompt.conversation if conversation is None else conversation
    tokens = prompt.tokens_after - saved_tokens
    decision = Decision(
        "tools",
        TOOL_PRUNING,
        sent.tools != prompt.conversation.tools,
        reason,
        prompt.tokens_after,
        tokens,
    )
    return replace(
        prompt, conversation=sent, decisions=(*prompt.decisions, decision), tokens_after=tokens
    )


def _digest(texts: Iterable[str]) -> bytes:
    hashed = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        hashed.update(len(raw).to_bytes(8, "big") + raw)
    return hashed.digest()
