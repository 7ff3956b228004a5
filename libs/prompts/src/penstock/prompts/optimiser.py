"""Applies a policy to a conversation, block by block: deterministic, idempotent, and back to the
original bytes on any doubt.

What a turn becomes depends on that turn and the ones before it only, so that the next call's prefix
is the same bytes. Never touched: user, assistant and system text (but for whole volatile lines
moved), tool calls and their pairing, and all up to a provider's breakpoint. Templates hold to that
too: they replace known parts of tool descriptions and tool results alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

from penstock.prompts.conversation import (
    Conversation,
    Decision,
    Optimised,
    Policy,
    TokenCounter,
    ToolSpec,
    Turn,
    estimate_tokens,
)
from penstock.prompts.json_text import compact
from penstock.prompts.lossless import TEXT_TRANSFORMS, without_escapes
from penstock.prompts.references import WHOLE, Said
from penstock.prompts.selection import Similarity, paragraphs, ranked, select
from penstock.prompts.stability import with_stable_prefix
from penstock.prompts.templates import replaced

Block = TypeVar("Block")
LEFT_OUT = "[{} of {} passages left out]"


class Optimiser:
    """A policy with its token counter and, for lossy selection, its embedder.

    Holds no state between calls.
    """

    def __init__(
        self,
        policy: Policy,
        count: TokenCounter | None = None,
        similarity: Similarity | None = None,
    ) -> None:
        self._policy = policy
        self._estimated = count is None
        self._count = count or estimate_tokens
        self._similarity = similarity

    def optimise(self, conversation: Conversation) -> Optimised:
        """Give the prompt to send.

        On any fault of a transform the block keeps its original bytes.
        """
        decisions: list[Decision] = []
        shaped = conversation
        if self._policy.stable_prefix:
            shaped = self._or_as_sent(
                "prompt", conversation, lambda made: self._stable(conversation, made), decisions
            )
        tools = self._or_as_sent(
            "tools", shaped.tools, lambda made: self._described(shaped, made), decisions
        )
        shaped = Conversation(self._turns(shaped.turns, decisions), tools)
        sizes = [self._count(turn.content) if turn.content else 0 for turn in conversation.turns]
        before = self._tools_size(conversation) + sum(sizes)
        changed = any(decision.applied for decision in decisions)
        after = self._size(shaped) if changed else before
        decisions += _left_alone(conversation, sizes, {decision.block for decision in decisions})
        return Optimised(shaped, tuple(decisions), before, after, self._estimated)

    def _or_as_sent(
        self,
        block: str,
        sent: Block,
        shape: Callable[[list[Decision]], Block],
        decisions: list[Decision],
    ) -> Block:
        """The block as `shape` makes it; as it was sent, with a decision that says so, where that
        raises.
        """
        made: list[Decision] = []
        try:
            shaped = shape(made)
        except Exception as fault:
            decisions.append(
                Decision(block, "fault", False, f"kept as sent after {type(fault).__name__}", 0, 0)
            )
            return sent
        decisions += made
        return shaped

    def _stable(self, conversation: Conversation, decisions: list[Decision]) -> Conversation:
        shaped, moved = with_stable_prefix(conversation)
        if not moved and shaped.tools == conversation.tools:
            return conversation
        before, after = self._size(conversation), self._size(shaped)
        if shaped.tools != conversation.tools:
            decisions.append(
                Decision(
                    "tools", "stable_order", True, "tools and schema keys in order", before, after
                )
            )
        if moved:
            decisions.append(
                Decision(
                    "turns[0]",
                    "volatile_last",
                    True,
                    f"{moved} volatile lines moved",
                    before,
                    after,
                )
            )
        return shaped

    def _described(
        self, conversation: Conversation, decisions: list[Decision]
    ) -> tuple[ToolSpec, ...]:
        """The tools with templates in their descriptions; a breakpoint stands behind all tools, so
        none are touched before one.
        """
        if not self._policy.templates or any(turn.breakpoint for turn in conversation.turns):
            return conversation.tools
        return tuple(
            replace(
                tool, description=self._by_template(f"tools[{index}]", tool.description, decisions)
            )
            for index, tool in enumerate(conversation.tools)
        )

    def _by_template(self, block: str, text: str, decisions: list[Decision]) -> str:
        for template in self._policy.templates:
            shorter = replaced(text, template, self._policy.templates)
            text = self._keep_if_shorter(
                block, f"template {template.name}", text, shorter, decisions
            )
        return text

    def _turns(self, turns: tuple[Turn, ...], decisions: list[Decision]) -> tuple[Turn, ...]:
        first = _after_breakpoint(turns)
        said = Said(self._policy)
        question = ""
        out: list[Turn] = []
        for index, turn in enumerate(turns):
            if turn.role == "user":
                question = turn.content
            if turn.role != "tool":
                out.append(turn)
            elif index < first:
                plain = compact(turn.content)
                said.learn(said.result(turn, plain or turn.content, plain is not None))
                out.append(turn)
            else:
                block, context = f"turns[{index}]", (question, said)
                shape = partial(self._tool_result, turn, block, context)
                out.append(
                    replace(turn, content=self._or_as_sent(block, turn.content, shape, decisions))
                )
        return tuple(out)

    def _tool_result(
        self, turn: Turn, block: str, context: tuple[str, Said], decisions: list[Decision]
    ) -> str:
        question, said = context
        text, result = turn.content, None
        if self._policy.templates and not turn.pinned and compact(text) is None:
            text = self._by_template(block, text, decisions)
        if self._policy.lossless:
            text, plain = self._shortened(block, text, decisions)
            result = said.result(turn, text if plain is None else plain, plain is not None)
            if repeat_of := said.repeat_of(result):
                shorter = self._keep_if_shorter(
                    block, "reference", text, WHOLE.format(repeat_of), decisions
                )
                if shorter is not text:
                    return shorter
            text = self._keep_if_shorter(
                block, "named_values", text, said.by_name(result), decisions
            )
        whole = text
        if self._policy.keep_share < 1.0 and question and not turn.pinned:
            text = self._keep_if_shorter(
                block, "select", text, self._selected(question, text), decisions
            )
        if result is not None and text is whole:
            # What was selected away could not be pointed to.
            said.learn(result)
        return text

    def _shortened(
        self, block: str, text: str, decisions: list[Decision]
    ) -> tuple[str, str | None]:
        """The text by itself without loss; and as JSON without blank space, where it is JSON."""
        text = self._keep_if_shorter(block, "escapes", text, without_escapes(text), decisions)
        plain = compact(text)
        if plain is not None:
            shorter = plain if len(plain) < len(text) else None
            return self._keep_if_shorter(block, "json", text, shorter, decisions), plain
        for name, transform in TEXT_TRANSFORMS:
            text = self._keep_if_shorter(block, name, text, transform(text), decisions)
        return text, None

    def _keep_if_shorter(
        self, block: str, transform: str, before: str, after: str | None, decisions: list[Decision]
    ) -> str:
        if after is None:
            return before
        old, new = self._count(before), self._count(after)
        applied = old - new >= self._policy.least_gain_tokens
        reason = (
            "fewer tokens"
            if applied
            else f"gains {old - new} tokens, fewer than {self._policy.least_gain_tokens}"
        )
        decisions.append(Decision(block, transform, applied, reason, old, new if applied else old))
        return after if applied else before

    def _selected(self, question: str, text: str) -> str | None:
        passages = paragraphs(text)
        if len(passages) < 2 or passages[-1].startswith("["):
            return None
        kept = select(
            ranked(question, passages, self._similarity),
            [self._count(passage) for passage in passages],
            self._policy.keep_share,
        )
        if len(kept) == len(passages):
            return None
        note = LEFT_OUT.format(len(passages) - len(kept), len(passages))
        return "\n\n".join([*(passages[index] for index in kept), note])

    def _size(self, conversation: Conversation) -> int:
        turns = sum(self._count(turn.content) for turn in conversation.turns if turn.content)
        return self._tools_size(conversation) + turns

    def _tools_size(self, conversation: Conversation) -> int:
        texts = (
            text
            for tool in conversation.tools
            for text in (tool.name, tool.description, tool.parameters)
        )
        return sum(self._count(text) for text in texts if text)


def _left_alone(
    conversation: Conversation, sizes: list[int], decided: set[str]
) -> Iterator[Decision]:
    """A decision for each turn that has none so far: why nothing was done to it."""
    first = _after_breakpoint(conversation.turns)
    for index, turn in enumerate(conversation.turns):
        if (block := f"turns[{index}]") not in decided:
            if index < first:
                why = "stands before a provider's breakpoint"
            else:
                why = (
                    "nothing to shorten"
                    if turn.role == "tool"
                    else f"{turn.role} text is never touched"
                )
            yield Decision(block, "none", False, why, sizes[index], sizes[index])


def _after_breakpoint(turns: tuple[Turn, ...]) -> int:
    """The first turn behind the last breakpoint of a provider."""
    return 1 + max((index for index, turn in enumerate(turns) if turn.breakpoint), default=-1)
