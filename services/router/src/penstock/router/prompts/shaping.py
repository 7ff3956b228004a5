"""The prompt says the same in fewer tokens: `penstock.prompts` on a generate task, by tenant and
model. Fails open to the bytes sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.prompts.conversation import Conversation, Decision, OptimisedPrompt, ToolSpec, Turn
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix import PrefixHistory, SharedPrefix
from penstock.router.prompts.passages import LocalEmbedder
from penstock.router.prompts.rules import PromptsSection, ShapingRule
from penstock.router.stages import PREFIX_NOTE, PROMPT_OPTIMISER, Shaped
from penstock.rpc.call import Call

log = logging.getLogger(__name__)
DECISIONS_RECORDED = 64


class PromptShape:
    """The shape stage. Holds one optimiser for each rule, and what each conversation sent last."""

    def __init__(
        self,
        section: PromptsSection,
        prices: Callable[[], Prices],
        embedder: Callable[[Path], LocalEmbedder] = LocalEmbedder,
    ) -> None:
        self._prices = prices
        self._embedder_of = embedder
        self._prefixes = PrefixHistory()
        self.replace(section)

    def replace(self, section: PromptsSection) -> None:
        """Put new rules in force.

        Raises:
            BadConfig: a tokenizer's file cannot be used; the old rules stay.
        """
        selects = any(rule.selects for rule in section.rules)
        embedder = self._embedder_of(section.embedder) if section.embedder and selects else None
        self._rules = section.optimisers(embedder)
        self._embedder = embedder

    def _rule(self, organisation: str, model: str) -> tuple[ShapingRule, Optimiser] | None:
        return next((item for item in self._rules if item[0].fits(organisation, model)), None)

    async def shape(
        self,
        call: Call,
        options: router_pb2.CallOptions,
        task: inference_pb2.Task,
        models: Sequence[str],
    ) -> Shaped:
        """Shape a generate task for the first of the models; anything else, and anything that goes
        wrong, stays as it is.
        """
        if task.WhichOneof("task") != "generate":
            return Shaped(task)
        organisation, embedder = call.principal.organisation, self._embedder
        found = self._rule(organisation, models[0])
        if found is None:
            return Shaped(task)
        rule, optimiser = found
        try:
            sent = _conversation(task.generate)
            if (
                rule.selects and embedder is not None
            ):  # the model computes for milliseconds: not on the loop
                done = await asyncio.to_thread(optimiser.optimise, sent)
            else:
                done = optimiser.optimise(sent)
            prefix = self._prefixes.record(_key(call, options, models[0], sent), done.conversation)
            shaped = self._shaped(task, done, prefix, models[0])
        except Exception:
            log.exception("a prompt was left as it was")
            return Shaped(task, notes=("prompt optimiser failed; the prompt is as it was sent",))
        if rule.selects and embedder is not None and embedder.given_up:
            shaped = replace(
                shaped,
                notes=(
                    *shaped.notes,
                    "prompt: passages by BM25 alone, the embedder cannot be used",
                ),
            )
        others = [model for model in models[1:] if self._rule(organisation, model) != found]
        return replace(shaped, not_for=tuple(others)) if shaped.task is not task else shaped

    def _shaped(
        self, task: inference_pb2.Task, done: OptimisedPrompt, prefix: SharedPrefix, model: str
    ) -> Shaped:
        counted = "estimated" if done.estimated else "counted by its tokenizer"
        decisions = (*done.decisions, prefix.decision(done.tokens_after))
        notes = (f"{PREFIX_NOTE}{decisions[-1].reason} ({prefix.share:.0%}), {counted}",)
        facts = partial(Shaped, prefix_share=prefix.share, decisions=_record(decisions))
        if not any(decision.applied for decision in done.decisions):
            return facts(task, notes=notes)
        saved = done.tokens_before - done.tokens_after
        cost = (self._prices().cost_bound_microusd(model, saved, 0) or 0) if saved > 0 else 0
        saving = common_pb2.Saving(technique=PROMPT_OPTIMISER, microusd=cost)
        applied = sorted({decision.transform for decision in done.decisions if decision.applied})
        note = (
            f"prompt: {', '.join(applied)}; {done.tokens_before} to {done.tokens_after} tokens, "
            f"{counted}"
        )
        return facts(_task(task, done.conversation), (saving,) if cost else (), (note, *notes))


def _key(call: Call, options: router_pb2.CallOptions, model: str, sent: Conversation) -> Hashable:
    """One conversation of one organisation with one model: its run or session, and how it began,
    since a run may hold several.
    """
    session = options.affinity_key or call.run_id
    began = next((turn.content for turn in sent.turns if turn.role == "user"), "")
    return call.principal.organisation, model, session, hash(began)


def _record(decisions: Sequence[Decision]) -> tuple[str, ...]:
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
        # An assistant's turn that asks for tools is paired with its results: its content is not to
        # be touched.
        Turn(
            turn.role, turn.content, turn.tool_call_id, turn.cache_breakpoint, bool(turn.tool_calls)
        )
        for turn in task.messages
    )
    return Conversation(
        turns,
        tuple(ToolSpec(tool.name, tool.description, tool.parameters_json) for tool in task.tools),
    )


def _task(task: inference_pb2.Task, shaped: Conversation) -> inference_pb2.Task:
    """The task with the shaped turns and tools; what the optimiser does not know of stays with its
    message or tool.
    """
    made = inference_pb2.Task()
    made.CopyFrom(task)
    if len(shaped.turns) == len(task.generate.messages):
        for message, turn in zip(made.generate.messages, shaped.turns, strict=True):
            message.role, message.content = turn.role, turn.content
    else:  # volatile lines were moved into a turn of their own
        del made.generate.messages[:]
        originals: Mapping[tuple[str, str], inference_pb2.Message] = {
            (message.role, message.tool_call_id): message
            for message in task.generate.messages
            if message.tool_call_id
        }
        calls = iter([message for message in task.generate.messages if message.tool_calls])
        for turn in shaped.turns:
            message = made.generate.messages.add(
                role=turn.role, content=turn.content, tool_call_id=turn.tool_call_id
            )
            message.cache_breakpoint = turn.breakpoint
            if turn.pinned:
                message.tool_calls.extend(next(calls).tool_calls)
        assert len(originals) <= len(made.generate.messages)
    tools = {tool.name: tool for tool in task.generate.tools}
    del made.generate.tools[:]
    for spec in shaped.tools:
        tool = made.generate.tools.add()
        tool.CopyFrom(tools[spec.name])
        tool.description, tool.parameters_json = spec.description, spec.parameters
    return made
