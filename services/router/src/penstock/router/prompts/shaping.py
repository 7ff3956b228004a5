"""The shape stage: `penstock.prompts` on a conversation, by the rule of its tenant and model.

A prompt that cannot be shaped is sent as it came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.prices.prices import Prices
from penstock.prompts.conversation import Conversation, Decision, OptimisedPrompt, ToolSpec, Turn
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix_cost import PrefixOutcome, PrefixRead, ReportedPrompt
from penstock.prompts.prefix_history import PrefixHistory, SharedPrefix
from penstock.router.prompts.passages import LocalEmbedder
from penstock.router.prompts.rules import PromptsSection, ShapingRule
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Shaped
from penstock.rpc.call import Call
from penstock.service.clock import Clock, SystemClock
from penstock.service.current import Current
from penstock.tasks.answers import text_of
from penstock.tasks.roles import ROLE_NAMES, ROLES

log = logging.getLogger(__name__)
DECISIONS_RECORDED = 64
LOSSES = {PrefixOutcome.BROKEN, PrefixOutcome.EXPIRED, PrefixOutcome.EVICTED}
"""What is said of a prefix that was not read."""
STABLE_ORDER = "stable_order"
"""The optimiser's transform of tools whose content stays."""
PROMPT_OPTIMISER = "prompt_optimiser"
"""Technique: a prompt was made to say the same in fewer tokens."""


class PromptShape:
    """The shape stage. Holds one optimiser for each rule, and what each conversation sent last."""

    def __init__(
        self,
        section: PromptsSection,
        prices: Current[Prices],
        embedder: Callable[[Path], LocalEmbedder] = LocalEmbedder,
        clock: Clock | None = None,
    ) -> None:
        self._prices = prices
        self._clock = clock or SystemClock()
        self._embedder_of = embedder
        self._prefixes = PrefixHistory()
        self._caching: set[str] = set()
        self._rules: Sequence[tuple[ShapingRule, Optimiser]] = ()
        self._embedder: LocalEmbedder | None = None
        self.prepare(section)()

    def prepare(self, section: PromptsSection) -> Callable[[], None]:
        """Load what new rules need; returns what puts them in force.

        Raises:
            BadConfig: a tokenizer's file cannot be used; the old rules stay.
        """
        selects = any(rule.selects for rule in section.rules)
        embedder = self._embedder_of(section.embedder) if section.embedder and selects else None
        rules = section.optimisers(embedder)

        def put_in_force() -> None:
            self._rules, self._embedder = rules, embedder

        return put_in_force

    def _rule(self, organisation: str, model: str) -> tuple[ShapingRule, Optimiser] | None:
        fitting = (item for item in self._rules if item[0].fits(organisation, model))
        return next(
            ((rule, optimiser.for_owner(organisation)) for rule, optimiser in fitting), None
        )

    async def shape(
        self, call: Call, request: ResolvedRequest, models: Sequence[str]
    ) -> Shaped | None:
        """Shape a conversation for the first of the models; None where no rule applies to it.

        Whatever goes wrong, the prompt stays as it is, and a note says so.
        """
        organisation, embedder = call.principal.organisation, self._embedder
        found = self._rule(organisation, models[0])
        if found is None:
            return None
        rule, optimiser = found
        selects = rule.selects and embedder is not None
        try:
            sent = _conversation(request.task.generate)
            if selects:
                # The embedder computes for milliseconds: not on the event loop.
                optimised = await asyncio.to_thread(optimiser.optimise, sent)
            else:
                optimised = optimiser.optimise(sent)
            if request.task.generate.HasField("wire_request") and _only_orders(optimised):
                optimised = _as_sent(sent, optimised)
            key = _conversation_key(call, request, models[0], sent)
            prefix = self._prefixes.record(
                key,
                optimised.conversation,
                _cache_settings(request.task.generate, models[0]),
                _without_images(request.task.generate),
            )
            shaped = self._shaped(request.task, optimised, prefix, models[0])
            shaped = replace(shaped, explain_read=self._explainer(key, prefix, models[0]))
        except Exception:
            log.exception("a prompt could not be optimised; it is sent as it came")
            note = "prompt optimiser failed; the prompt is as it was sent"
            return Shaped(request.task, notes=(note,))
        if selects and embedder is not None and embedder.given_up:
            note = "prompt: passages by BM25 alone, the embedder cannot be used"
            shaped = replace(shaped, notes=(*shaped.notes, note))
        if shaped.task is request.task:
            return shaped
        others = [model for model in models[1:] if self._rule(organisation, model) != found]
        return replace(shaped, not_for=tuple(others))

    def _explainer(
        self, key: Hashable, prefix: SharedPrefix, model: str
    ) -> Callable[[common_pb2.Usage], str]:
        """Says what became of a prompt's prefix, and what it cost where it was lost."""
        sent_s = self._clock.monotonic()

        def explain(usage: common_pb2.Usage) -> str:
            if usage.estimated:
                return ""
            cached, written = usage.cached_input_tokens, usage.written_input_tokens
            if cached or written:
                self._caching.add(model)
            reported = ReportedPrompt(usage.input_tokens, cached, written, sent_s)
            caches = model in self._caching
            return self._said(self._prefixes.answered(key, prefix, reported, caches=caches), model)

        return explain

    def _said(self, read: PrefixRead, model: str) -> str:
        """The line about a prefix that was lost; empty where that cost nothing."""
        lost_microusd = self._prices.value.lost_prefix_microusd(model, read.lost_tokens)
        if not lost_microusd or read.outcome not in LOSSES:
            return ""
        return (
            f"prefix: {read.lost_tokens} of {read.readable_tokens} tokens were not read from the "
            f"provider's cache, which cost {lost_microusd} microusd: {read.outcome.value}"
        )

    def _shaped(
        self, task: inference_pb2.Task, optimised: OptimisedPrompt, prefix: SharedPrefix, model: str
    ) -> Shaped:
        counted = "estimated" if optimised.estimated else "counted by its tokenizer"
        decisions = (*optimised.decisions, prefix.decision(optimised.tokens_after))
        unchanged = Shaped(
            task,
            prefix_note=f"prefix: {decisions[-1].reason} ({prefix.share:.0%}), {counted}",
            prefix_share=prefix.share,
            decisions=_lines(decisions),
        )
        applied = sorted({one.transform for one in optimised.decisions if one.applied})
        if not applied:
            return unchanged
        before, after = optimised.tokens_before, optimised.tokens_after
        note = f"prompt: {', '.join(applied)}; {before} to {after} tokens, {counted}"
        saved = max(0, before - after)
        saved_microusd = self._prices.value.cost_bound_microusd(model, saved, 0) or 0
        saving = common_pb2.Saving(technique=PROMPT_OPTIMISER, microusd=saved_microusd)
        return replace(
            unchanged,
            task=_task(task, optimised.conversation),
            savings=(saving,) if saved_microusd else (),
            notes=(note,),
        )


def _only_orders(optimised: OptimisedPrompt) -> bool:
    """Whether nothing but the order and spacing of tools changes."""
    return {one.transform for one in optimised.decisions if one.applied} == {STABLE_ORDER}


def _as_sent(sent: Conversation, optimised: OptimisedPrompt) -> OptimisedPrompt:
    """The prompt as it came. The order of tools is worth something only where it changes from call
    to call; the caller's own bytes are worth more.
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


def _conversation_key(
    call: Call, request: ResolvedRequest, model: str, sent: Conversation
) -> Hashable:
    """One conversation of one organisation with one model: its run or session, and how it began,
    since a run may hold several.
    """
    session = request.options.affinity_key or call.run_id
    began = next((turn.content for turn in sent.turns if turn.role == "user"), "")
    return call.principal.organisation, model, session, hash(began)


def _lines(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """The decisions as lines for the trace, the last one, about the prefix, always among them."""
    kept = (
        decisions
        if len(decisions) <= DECISIONS_RECORDED
        else (*decisions[: DECISIONS_RECORDED - 1], decisions[-1])
    )
    return tuple(
        f"{one.block} {one.transform}: {one.reason}, {one.tokens_before} to "
        f"{one.tokens_after} tokens"
        for one in kept
    )


def _conversation(task: inference_pb2.GenerateTask) -> Conversation:
    turns = tuple(
        Turn(
            ROLE_NAMES[message.role],
            text_of(message),
            message.tool_call_id,
            message.cache_breakpoint or any(part.cache_breakpoint for part in message.parts),
            # An assistant's turn that asks for tools is paired with its results.
            pinned=bool(message.tool_calls),
            fixed=bool(message.parts),
            rest=_rest(message),
        )
        for message in task.messages
    )
    tools = tuple(
        ToolSpec(tool.name, tool.description, tool.parameters_json, tool.cache_breakpoint)
        for tool in task.tools
    )
    return Conversation(turns, tools)


def _cache_settings(task: inference_pb2.GenerateTask, model: str) -> dict[str, str]:
    """What providers' prefix caches go by beside the text: another value is another cache."""
    settings = {"model": model}
    for name in ("tool_choice", "response_format", "reasoning", "parallel_tool_calls"):
        if task.HasField(name):
            settings[name] = str(getattr(task, name))
    return settings


def _without_images(task: inference_pb2.GenerateTask) -> list[bytes]:
    """The rest of each message that has images, without their bytes."""
    return [
        _rest(_blank_images(message))
        if any(part.HasField("image") for part in message.parts)
        else b""
        for message in task.messages
    ]


def _blank_images(message: inference_pb2.Message) -> inference_pb2.Message:
    blank = inference_pb2.Message()
    blank.CopyFrom(message)
    for part in blank.parts:
        if part.HasField("image"):
            part.image.ClearField("source")
            part.image.ClearField("media_type")
    return blank


def _rest(message: inference_pb2.Message) -> bytes:
    """What a provider sees of a message beside its role, its text and the call that it answers."""
    rest = inference_pb2.Message(
        tool_calls=message.tool_calls,
        parts=message.parts,
        refusal=message.refusal,
        reasoning=message.reasoning,
        is_error=message.is_error,
        extra_json=message.extra_json,
    )
    return rest.SerializeToString(deterministic=True)


def _task(task: inference_pb2.Task, shaped: Conversation) -> inference_pb2.Task:
    """The task with the shaped turns and tools; what the optimiser does not know of stays with its
    message or tool.
    """
    made = inference_pb2.Task()
    made.CopyFrom(task)
    made.generate.ClearField("wire_request")  # It holds the prompt as it came.
    messages = made.generate.messages
    for message, turn in zip(messages, shaped.turns, strict=False):
        if not turn.fixed:
            message.content = turn.content
    for turn in shaped.turns[len(messages) :]:  # volatile lines in a turn of their own
        messages.add(role=ROLES[turn.role], content=turn.content)
    tools = {tool.name: tool for tool in task.generate.tools}
    del made.generate.tools[:]
    for spec in shaped.tools:
        tool = made.generate.tools.add()
        tool.CopyFrom(tools[spec.name])
        tool.description, tool.parameters_json = spec.description, spec.parameters
    return made
