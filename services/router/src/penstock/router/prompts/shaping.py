"""The shape stage: `penstock.prompts` on a conversation, by the rule of its tenant and model.

A prompt that cannot be shaped is sent as it came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from penstock.api.common.v1 import common_pb2
from penstock.prices.prices import Prices
from penstock.prompts.conversation import Conversation, Decision, OptimisedPrompt
from penstock.prompts.left_out import Pieces, tokens_left_out
from penstock.prompts.optimiser import Optimiser
from penstock.router.prompts.conversations import conversation_of, task_of
from penstock.router.prompts.direct_calls import DirectCalls
from penstock.router.prompts.passages import LocalEmbedder
from penstock.router.prompts.prefixes import Prefixes, Repairs
from penstock.router.prompts.pruning import TOOL_PRUNING, PrunedPrompt, ToolPruner
from penstock.router.prompts.rules import PromptsSection, ShapingRule
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import DirectCall, SentPrompt, Shaped
from penstock.rpc.call import Call
from penstock.service.current import Current

log = logging.getLogger(__name__)
DECISIONS_RECORDED = 64
STABLE_ORDER, VOLATILE_LAST = "stable_order", "volatile_last"
"""The optimiser's transforms of tools and instructions whose content stays."""
PROMPT_OPTIMISER = "prompt_optimiser"
"""Technique: a prompt was made to say the same in fewer tokens."""


class PromptShape:
    """The shape stage. Holds one optimiser for each rule, and what each conversation sent last."""

    def __init__(
        self,
        section: PromptsSection,
        prices: Current[Prices],
        prefixes: Prefixes,
        direct: DirectCalls,
        embedder: Callable[[Path], LocalEmbedder] = LocalEmbedder,
    ) -> None:
        self._prices = prices
        self._prefixes = prefixes
        self._direct = direct
        self._pieces = Pieces()
        self._embedder_of = embedder
        self._rules: Sequence[tuple[ShapingRule, Optimiser]] = ()
        self._embedder: LocalEmbedder | None = None
        self._pruner: ToolPruner | None = None
        self.prepare(section)()

    def prepare(self, section: PromptsSection) -> Callable[[], None]:
        """Load what new rules need; returns what puts them in force.

        Raises:
            BadConfig: a tokenizer's file cannot be used; the old rules stay.
        """
        is_needed = any(rule.needs_embedder for rule in section.rules)
        embedder = self._embedder_of(section.embedder) if section.embedder and is_needed else None
        rules = section.optimisers(embedder)

        def put_in_force() -> None:
            self._rules, self._embedder = rules, embedder
            self._pruner = ToolPruner(embedder) if embedder is not None else None

        return put_in_force

    def _rule(self, organisation: str, model: str) -> tuple[ShapingRule, Optimiser] | None:
        fitting = (item for item in self._rules if item[0].fits(organisation, model))
        return next(
            ((rule, optimiser.for_owner(organisation)) for rule, optimiser in fitting), None
        )

    async def shape(self, call: Call, request: ResolvedRequest, models: Sequence[str]) -> Shaped:
        """Shape a conversation for the first of the models; where no rule applies to it, it is sent
        as it came.

        Whatever goes wrong, the prompt stays as it is, and a note says so.
        """
        found = self._rule(call.principal.organisation, models[0])
        try:
            sent = conversation_of(request.task.generate)
            if found is None:
                direct = self._direct.follow(call, request, sent, sent)
                prompt = self._prefixes.sent(call, request, sent)
                return Shaped(request.task, prompt=prompt, direct=direct)
            rule, optimiser = found
            optimised = await self._optimised(rule, optimiser, sent)
            left_out = tokens_left_out(
                sent, optimised.conversation, optimiser.count or self._pieces
            )
            pruned = await self._pruned(rule, optimiser, request, optimised)
            optimised = pruned.prompt
            is_wire = request.task.generate.HasField("wire_request")
            if is_wire and _only_orders(optimised):
                as_it_came = self._prefixes.sent(call, request, sent)
                in_order = self._prefixes.sent(call, request, _lasting(optimised))
                if not in_order.repairs_tools_of(as_it_came):
                    optimised = _as_sent(sent, optimised)
            repairs = Repairs(rule.repairs, _repairs_applied(rule, optimised))
            prompt = self._prefixes.sent(call, request, _lasting(optimised), repairs)
            shaped = self._shaped(request, replace(pruned, prompt=optimised), prompt, left_out)
            direct = self._direct.follow(
                call, request, sent, optimised.conversation, left_out + pruned.saved_tokens
            )
            shaped = replace(shaped, direct=direct)
        except Exception:
            log.exception("a prompt could not be optimised; it is sent as it came")
            note = "prompt optimiser failed; the prompt is as it was sent"
            return Shaped(request.task, notes=(note,))
        if rule.selects and self._embedder is not None and self._embedder.given_up:
            note = "prompt: passages by BM25 alone, the embedder cannot be used"
            shaped = replace(shaped, notes=(*shaped.notes, note))
        if shaped.task is request.task:
            return shaped
        organisation = call.principal.organisation
        others = [model for model in models[1:] if self._rule(organisation, model) != found]
        return replace(shaped, not_for=tuple(others))

    def reused(self, call: Call, request: ResolvedRequest) -> DirectCall | None:
        """Follow a prompt that is answered from memory."""
        if not self._prices.value.has_prefix_prices(request.model):
            return None
        return self._direct.follow(call, request, conversation_of(request.task.generate), None)

    async def _optimised(
        self, rule: ShapingRule, optimiser: Optimiser, sent: Conversation
    ) -> OptimisedPrompt:
        if rule.selects and self._embedder is not None:
            # The embedder computes for milliseconds: not on the event loop.
            return await asyncio.to_thread(optimiser.optimise, sent)
        return optimiser.optimise(sent)

    async def _pruned(
        self,
        rule: ShapingRule,
        optimiser: Optimiser,
        request: ResolvedRequest,
        optimised: OptimisedPrompt,
    ) -> PrunedPrompt:
        """The prompt without the tools that the rule leaves out."""
        pruner, section, task = self._pruner, rule.prune_tools, request.task.generate
        if pruner is None or section is None or not task.tools:
            return PrunedPrompt(optimised)
        pruned = await asyncio.to_thread(
            pruner.prune, task, optimised, section.policy, optimiser.count
        )
        if not section.dry_run:
            return pruned
        return PrunedPrompt(optimised, note=f"dry run, {pruned.note}" if pruned.note else "")

    def _shaped(
        self, request: ResolvedRequest, pruned: PrunedPrompt, prompt: SentPrompt, left_out: int
    ) -> Shaped:
        task, optimised = request.task, pruned.prompt
        notes = (pruned.note,) if pruned.note else ()
        unchanged = Shaped(task, notes=notes, prompt=prompt, decisions=_lines(optimised.decisions))
        applied = sorted({one.transform for one in optimised.decisions if one.applied})
        if not applied:
            return unchanged
        before, after = optimised.tokens_before, optimised.tokens_after
        counted = "estimated" if optimised.estimated else "counted by its tokenizer"
        note = f"prompt: {', '.join(applied)}; {before} to {after} tokens, {counted}"
        return replace(
            unchanged,
            task=task_of(task, optimised.conversation),
            savings=tuple(self._savings(pruned, prompt, request.model, left_out)),
            notes=(note, *notes),
        )

    def _savings(
        self, pruned: PrunedPrompt, prompt: SentPrompt, model: str, left_out: int
    ) -> Iterator[common_pb2.Saving]:
        """What the tokens saved would have cost. Those of tools that were left out before, too,
        would have been read from the provider's prefix cache.
        """
        prices = self._prices.value
        optimised = prices.input_microusd(model, left_out)
        if optimised:
            yield common_pb2.Saving(technique=PROMPT_OPTIMISER, microusd=optimised)
        if prompt.share:
            tools = prices.read_prefix_microusd(model, pruned.saved_tokens)
        else:
            tools = prices.cost_bound_microusd(model, pruned.saved_tokens, 0) or 0
        if tools:
            yield common_pb2.Saving(technique=TOOL_PRUNING, microusd=tools)


def _repairs_applied(rule: ShapingRule, optimised: OptimisedPrompt) -> tuple[str, ...]:
    """The settings that mended something of a prompt."""
    transforms = {one.transform for one in optimised.decisions if one.applied}
    applied = []
    if STABLE_ORDER in transforms:
        applied.append("sort_schema_keys" if rule.sort_schema_keys else "stable_prefix")
    if VOLATILE_LAST in transforms:
        applied.append("later_system_turn")
    return tuple(applied)


def _lasting(optimised: OptimisedPrompt) -> Conversation:
    """The prompt without the turn of volatile lines at its end, which the next one does not have
    there.
    """
    shaped = optimised.conversation
    moved = any(one.transform == VOLATILE_LAST and one.applied for one in optimised.decisions)
    return replace(shaped, turns=shaped.turns[:-1]) if moved else shaped


def _only_orders(optimised: OptimisedPrompt) -> bool:
    """Whether nothing but the order and spacing of tools changes."""
    return {one.transform for one in optimised.decisions if one.applied} == {STABLE_ORDER}


def _as_sent(sent: Conversation, optimised: OptimisedPrompt) -> OptimisedPrompt:
    """The prompt as it came. The order of tools is worth something only where it changes from call
    to call; else the caller's own bytes are worth more.
    """
    decisions = (
        replace(one, applied=False, reason="kept as sent, its bytes go to the provider")
        if one.applied
        else one
        for one in optimised.decisions
    )
    return replace(
        optimised,
        conversation=sent,
        decisions=tuple(decisions),
        tokens_after=optimised.tokens_before,
    )


def _lines(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """The decisions as lines for the trace."""
    return tuple(
        f"{one.block} {one.transform}: {one.reason}, {one.tokens_before} to "
        f"{one.tokens_after} tokens"
        for one in decisions[:DECISIONS_RECORDED]
    )
