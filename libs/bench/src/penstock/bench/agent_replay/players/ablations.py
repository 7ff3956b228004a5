"""Each technique of shaping alone, and all but one: the optimiser's own code on the recorded
prompts, priced by the provider's books, one prompt after the other without a wire.

Answers that are reused have no ablation: receipts tell what each of those techniques saved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from penstock.bench.agent_replay.provider.prefix_books import (
    TOKEN_BYTES,
    PrefixCache,
    PriceSheet,
    Tokens,
)
from penstock.bench.agent_replay.provider.token_counts import PromptTokens
from penstock.bench.agent_replay.traffic.recordings import Json, RecordedRun, text_of
from penstock.bench.agent_replay.traffic.requests import Writing, chat_body
from penstock.prompts.conversation import Conversation, Policy, ToolSpec, Turn
from penstock.prompts.optimiser import Optimiser

NONE = Policy(stable_prefix=False, lossless=False, named_values=False)
ALL = Policy(later_system_turn=True, sort_schema_keys=True)
ORDER, MOVED = {"stable_prefix": True}, {"stable_prefix": True, "later_system_turn": True}
TECHNIQUES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "tools in order (without it no line moves)": (ORDER, {"stable_prefix": False}),
    "tools in order, lines moved": (MOVED, {"later_system_turn": False}),
    "tools in order, schema keys too": (
        {**ORDER, "sort_schema_keys": True},
        {"sort_schema_keys": False},
    ),
    "shorter tool results": ({"lossless": True}, {"lossless": False}),
    "shorter results, references to earlier values": (
        {"lossless": True, "named_values": True},
        {"named_values": False},
    ),
}
"""What a policy has where a technique is alone, and what it lacks where the technique is left
out.
"""
Ablation = dict[str, tuple[float, float]]
"""By technique: the share of the input's cost that it saves alone, and that all save without it."""
STEP_S = 5.0
"""Between two prompts, for the provider's cache."""


def input_microusd(
    runs: Sequence[RecordedRun], policy: Policy, tokens: PromptTokens, sheet: PriceSheet
) -> float:
    """What the prompts of runs cost under a policy; the first calls of all come before the second
    ones.
    """
    optimiser, cache, now_s, total = Optimiser(policy), PrefixCache(), 0.0, 0.0
    for call in range(max(len(run.ends) for run in runs)):
        for run in runs:
            if call < len(run.ends):
                body = chat_body(run, call, Writing.AS_RECORDED)
                prompt = tokens.prompt(shaped(body, optimiser))
                cached, written = cache.read_and_keep(prompt, now_s)
                total += sheet.microusd(Tokens(len(prompt) // TOKEN_BYTES, cached, written, 0))
                now_s += STEP_S / len(runs)
    return total


def shaped(body: Json, optimiser: Optimiser) -> Json:
    """A body as the optimiser would have it sent."""
    messages = body["messages"]
    tools = {tool["function"]["name"]: tool for tool in body.get("tools", ())}
    found = optimiser.optimise(_conversation(messages, list(tools.values()))).conversation
    sent = [
        {**message, "content": turn.content or message.get("content")}
        for message, turn in zip(messages, found.turns, strict=False)
    ]
    sent += [{"role": turn.role, "content": turn.content} for turn in found.turns[len(messages) :]]
    ordered = [_tool(tools[spec.name], spec) for spec in found.tools]
    return {**body, "messages": sent, **({"tools": ordered} if ordered else {})}


def _conversation(messages: Sequence[Json], tools: Sequence[Json]) -> Conversation:
    turns = tuple(
        Turn(
            message["role"],
            text_of(message),
            message.get("tool_call_id", ""),
            pinned=bool(message.get("tool_calls")),
            rest=json.dumps(message.get("tool_calls") or "").encode(),
        )
        for message in messages
    )
    specs = (tool["function"] for tool in tools)
    return Conversation(
        turns,
        tuple(
            ToolSpec(
                spec["name"], spec.get("description", ""), json.dumps(spec.get("parameters", {}))
            )
            for spec in specs
        ),
    )


def _tool(tool: Json, spec: ToolSpec) -> Json:
    parameters = json.loads(spec.parameters)
    return {**tool, "function": {**tool["function"], "parameters": parameters}}


def ablation(runs: Sequence[RecordedRun], tokens: PromptTokens, sheet: PriceSheet) -> Ablation:
    """What each technique saves; under `all of them`, what they save together, and none."""
    before = input_microusd(runs, NONE, tokens, sheet)

    def cut(policy: Policy) -> float:
        return 1 - input_microusd(runs, policy, tokens, sheet) / before

    found = {
        name: (cut(replace(NONE, **alone)), cut(replace(ALL, **absent)))
        for name, (alone, absent) in TECHNIQUES.items()
    }
    return found | {"all of them": (cut(ALL), 0.0)}
