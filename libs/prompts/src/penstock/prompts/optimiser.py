"""Applies a policy to a conversation, block by block.

Idempotent, and deterministic but for what it learns: which lines of instructions change, and
whether tools come in changing order. Where a transform raises, the block keeps its original bytes.

What a turn becomes depends only on that turn and the turns before it, so the next call of the
conversation has the same prefix. Never changed are: the text of users, assistants and the system
(except whole volatile lines that move), tool calls and their pairing with results, and everything
before a provider's breakpoint. Templates replace parts of tool descriptions and tool results only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from penstock.prompts.changing_lines import ChangingLines
from penstock.prompts.conversation import (
    Conversation,
    Decision,
    OptimisedPrompt,
    Policy,
    TokenCounter,
    ToolSpec,
    Turn,
    estimate_tokens,
)
from penstock.prompts.known_texts import JsonTexts
from penstock.prompts.lossless import TEXT_TRANSFORMS, strip_escapes
from penstock.prompts.prefix import with_stable_prefix
from penstock.prompts.references import RESULT_REFERENCE, ReferenceIndex, ToolResult
from penstock.prompts.selection import Similarity, rank_passages, select_passages, split_passages
from penstock.prompts.templates import apply_template
from penstock.prompts.tool_orders import ToolOrders

Block = TypeVar("Block")
LEFT_OUT = "[{} of {} passages left out]"


@dataclass(frozen=True)
class Optimiser:
    """A policy with what it needs.

    Attributes:
        policy: what may be done.
        count: the model's tokenizer; None: tokens are estimated.
        similarity: for lossy selection.
        owner: whose prompts they are; what is learnt of one owner's does not touch another's.
        lines: which lines of instructions change, of all owners.
        orders: whether tools come in changing order, of all owners.
        texts: what is known of JSON that comes again, of all owners.
    """

    policy: Policy
    count: TokenCounter | None = None
    similarity: Similarity | None = None
    owner: str = ""
    lines: ChangingLines = field(default_factory=ChangingLines, compare=False, repr=False)
    orders: ToolOrders = field(default_factory=ToolOrders, compare=False, repr=False)
    texts: JsonTexts = field(default_factory=JsonTexts, compare=False, repr=False)

    def for_owner(self, owner: str) -> Optimiser:
        """The same for another owner's prompts; those of one owner are equal."""
        return replace(self, owner=owner)

    def optimise(self, conversation: Conversation) -> OptimisedPrompt:
        """The prompt to send for a conversation, with a decision for each block."""
        count = self.count or estimate_tokens
        shaping = _Shaping(self)
        shaped = shaping.shape(conversation)
        sizes = [count(turn.content) if turn.content else 0 for turn in conversation.turns]
        tokens_before = shaping.tool_tokens(conversation) + sum(sizes)
        is_changed = any(decision.applied for decision in shaping.decisions)
        tokens_after = shaping.tokens(shaped) if is_changed else tokens_before
        decided = {decision.block for decision in shaping.decisions}
        untouched = _untouched_turns(conversation, sizes, decided)
        decisions = (*shaping.decisions, *untouched)
        return OptimisedPrompt(
            shaped, decisions, tokens_before, tokens_after, estimated=self.count is None
        )

    def changing(self, lines: Sequence[str]) -> frozenset[int]:
        """The places of lines of the owner's instructions that change from prompt to prompt."""
        return self.lines.find(self.owner, lines)

    def tools_vary(self, in_order: tuple[ToolSpec, ...], sent: tuple[ToolSpec, ...]) -> bool:
        """Whether the owner's tools, equal but for their order, came in another one before."""
        return self.orders.vary(self.owner, in_order, sent)

    def compact(self, text: str) -> str | None:
        """A text without the white space between its tokens; see `json_text.compact`."""
        return self.texts.compact(text)


class _Shaping:
    """The shaping of one conversation; `decisions` grows as it goes."""

    def __init__(self, optimiser: Optimiser) -> None:
        self.decisions: list[Decision] = []
        self._policy = optimiser.policy
        self._count = optimiser.count or estimate_tokens
        self._similarity = optimiser.similarity
        self._known = optimiser
        self._references = ReferenceIndex(optimiser.policy, optimiser.texts.values)
        self._question = ""

    def shape(self, conversation: Conversation) -> Conversation:
        """The conversation as it is to be sent."""
        shaped = conversation
        if self._policy.stable_prefix:
            shaped = self._or_original(
                "prompt", conversation, lambda: self._stabilised(conversation)
            )
        prompt = shaped
        tools = self._or_original("tools", prompt.tools, lambda: self._shaped_tools(prompt))
        return Conversation(self._shaped_turns(prompt.turns), tools)

    def tokens(self, conversation: Conversation) -> int:
        """Tokens of a whole prompt."""
        turns = sum(self._count(turn.content) for turn in conversation.turns if turn.content)
        return self.tool_tokens(conversation) + turns

    def tool_tokens(self, conversation: Conversation) -> int:
        """Tokens of a prompt's tools."""
        texts = (
            text
            for tool in conversation.tools
            for text in (tool.name, tool.description, tool.parameters)
        )
        return sum(self._count(text) for text in texts if text)

    def _or_original(self, block: str, original: Block, shape: Callable[[], Block]) -> Block:
        """The block as `shape` returns it.

        Where it raises, the original, and one decision that says so in place of its others.
        """
        known = len(self.decisions)
        try:
            return shape()
        except Exception as error:
            del self.decisions[known:]
            reason = f"kept as sent after {type(error).__name__}"
            self.decisions.append(Decision(block, "fault", False, reason, 0, 0))
            return original

    def _stabilised(self, conversation: Conversation) -> Conversation:
        shaped, moved = with_stable_prefix(conversation, self._policy, self._known)
        reordered = shaped.tools != conversation.tools
        if not moved and not reordered:
            return conversation
        sizes = (self.tokens(conversation), self.tokens(shaped))
        if reordered:
            reason = "tools in one order, their schemas without whitespace"
            if self._policy.sort_schema_keys:
                reason = "tools and schema keys in one order"
            self.decisions.append(Decision("tools", "stable_order", True, reason, *sizes))
        if moved:
            reason = f"{moved} volatile lines moved"
            self.decisions.append(Decision("turns[0]", "volatile_last", True, reason, *sizes))
        return shaped

    def _shaped_tools(self, conversation: Conversation) -> tuple[ToolSpec, ...]:
        """The tools with templates applied to their descriptions.

        A provider's breakpoint stands behind all tools, so with any breakpoint none is changed.
        """
        has_breakpoint = any(tool.breakpoint for tool in conversation.tools) or any(
            turn.breakpoint for turn in conversation.turns
        )
        if not self._policy.templates or has_breakpoint:
            return conversation.tools
        return tuple(
            replace(tool, description=self._by_templates(f"tools[{index}]", tool.description))
            for index, tool in enumerate(conversation.tools)
        )

    def _shaped_turns(self, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        first_changeable = _after_last_breakpoint(turns)
        shaped: list[Turn] = []
        for index, turn in enumerate(turns):
            if turn.role == "user":
                self._question = turn.content
            if turn.role != "tool" or turn.fixed:
                shaped.append(turn)
            elif index < first_changeable:
                self._index_unchanged(turn)
                shaped.append(turn)
            else:
                shaped.append(replace(turn, content=self._shaped_result(turn, f"turns[{index}]")))
        return tuple(shaped)

    def _index_unchanged(self, turn: Turn) -> None:
        """Let later results refer to a tool result that is sent as it is."""
        plain = self._known.compact(turn.content)
        result = self._references.result(turn, plain or turn.content, plain is not None)
        self._references.add(result)

    def _shaped_result(self, turn: Turn, block: str) -> str:
        return self._or_original(block, turn.content, lambda: self._tool_result(turn, block))

    def _tool_result(self, turn: Turn, block: str) -> str:
        """One tool result: templates, then lossless transforms, then lossy selection."""
        text = turn.content
        if self._policy.templates and not turn.pinned and self._known.compact(text) is None:
            text = self._by_templates(block, text)
        result: ToolResult | None = None
        if self._policy.lossless:
            text, plain = self._without_loss(block, text)
            result = self._references.result(
                turn, text if plain is None else plain, plain is not None
            )
            if reference := self._reference_to_repeated(block, text, result):
                return reference
            with_references = self._references.replace_values(result)
            text = self._keep_if_shorter(block, "named_values", text, with_references)
        before_selection = text
        if self._policy.keep_share < 1.0 and self._question and not turn.pinned:
            text = self._keep_if_shorter(block, "select", text, self._selected(text))
        if result is not None and text is before_selection:
            # Later results cannot refer to passages that were left out.
            self._references.add(result)
        return text

    def _reference_to_repeated(self, block: str, text: str, result: ToolResult) -> str:
        """The reference to an earlier result that this one repeats; empty for none."""
        repeated = self._references.find_repeated(result)
        if not repeated:
            return ""
        reference = RESULT_REFERENCE.format(repeated)
        shorter = self._keep_if_shorter(block, "reference", text, reference)
        return shorter if shorter is not text else ""

    def _without_loss(self, block: str, text: str) -> tuple[str, str | None]:
        """The text shortened by itself; and, where it is JSON, the text without whitespace."""
        text = self._keep_if_shorter(block, "escapes", text, strip_escapes(text))
        plain = self._known.compact(text)
        if plain is not None:
            shorter = plain if len(plain) < len(text) else None
            return self._keep_if_shorter(block, "json", text, shorter), plain
        for name, transform in TEXT_TRANSFORMS:
            text = self._keep_if_shorter(block, name, text, transform(text))
        return text, None

    def _by_templates(self, block: str, text: str) -> str:
        for template in self._policy.templates:
            shorter = apply_template(text, template, self._policy.templates)
            text = self._keep_if_shorter(block, f"template {template.name}", text, shorter)
        return text

    def _selected(self, text: str) -> str | None:
        """The passages that the question needs; None where all of them stay."""
        passages = split_passages(text)
        if len(passages) < 2 or passages[-1].startswith("["):
            return None
        ranking = rank_passages(self._question, passages, self._similarity)
        sizes = [self._count(passage) for passage in passages]
        kept = select_passages(ranking, sizes, self._policy.keep_share)
        if len(kept) == len(passages):
            return None
        note = LEFT_OUT.format(len(passages) - len(kept), len(passages))
        return "\n\n".join([*(passages[index] for index in kept), note])

    def _keep_if_shorter(self, block: str, transform: str, before: str, after: str | None) -> str:
        """`after` where it saves enough tokens, else `before`, with a decision; None: no change."""
        if after is None:
            return before
        tokens_before = self._count(before)
        tokens_after = self._count(after)
        gain = tokens_before - tokens_after
        if gain >= self._policy.min_gain_tokens:
            self.decisions.append(
                Decision(block, transform, True, "fewer tokens", tokens_before, tokens_after)
            )
            return after
        reason = f"gains {gain} tokens, fewer than {self._policy.min_gain_tokens}"
        self.decisions.append(
            Decision(block, transform, False, reason, tokens_before, tokens_before)
        )
        return before


def _untouched_turns(
    conversation: Conversation, sizes: Sequence[int], decided: set[str]
) -> Iterator[Decision]:
    """A decision for each turn that has none yet, with the reason for leaving it alone."""
    first_changeable = _after_last_breakpoint(conversation.turns)
    for index, turn in enumerate(conversation.turns):
        block = f"turns[{index}]"
        if block in decided:
            continue
        if index < first_changeable:
            reason = "stands before a provider's breakpoint"
        elif turn.role == "tool":
            reason = "nothing to shorten"
        else:
            reason = f"{turn.role} text is never touched"
        yield Decision(block, "none", False, reason, sizes[index], sizes[index])


def _after_last_breakpoint(turns: tuple[Turn, ...]) -> int:
    """Position of the first turn behind the last provider's breakpoint."""
    return 1 + max((index for index, turn in enumerate(turns) if turn.breakpoint), default=-1)
