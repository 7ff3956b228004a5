"""What pruning does to whole conversations: tau-bench's agents with functions of BFCL beside their
own.

The schemas of tau-bench's functions are not in its recordings: their names, and those of the
arguments that the agents gave, stand in for them, so that pruning has less to go by than it would.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from penstock.bench.harness.options import Options
from penstock.bench.tokens.data import TAU_BENCH, Trajectory, trajectories
from penstock.bench.tool_pruning.data import SEED, Request
from penstock.bench.tool_pruning.ranked import Ranker
from penstock.prompts.conversation import ToolSpec, Turn
from penstock.prompts.prefix import shared_prefix_bytes
from penstock.prompts.tool_pruning import Asked, Called, Pruned, PruningPolicy, Step, prune

SIZE = 60
"""Tools of an agent."""
READ_PRICE, WRITE_PRICE = 0.1, 1.25
TASKS_APART = 5, 2
"""Tasks whose number modulo the first is below the second were used while the rule was made."""


class Played(NamedTuple):
    """What became of the conversations of one task.

    Attributes:
        calls: of tools.
        kept: of these, those whose tool was sent.
        prompts: sent.
        changes: prompts whose tools were not those of the prompt before.
        conversations: played.
        cost, full_cost: of the prompts, in bytes at the price of plain input, with pruning and with
            all tools; what a prompt shares with the one before it is read from a prefix cache.
        sent, full_sent: bytes of the prompts, which are their cost without a prefix cache.
    """

    calls: int = 0
    kept: int = 0
    prompts: int = 0
    changes: int = 0
    conversations: int = 0
    cost: float = 0.0
    full_cost: float = 0.0
    sent: int = 0
    full_sent: int = 0

    def plus(self, other: Played) -> Played:
        """Both together."""
        return Played(
            self.calls + other.calls,
            self.kept + other.kept,
            self.prompts + other.prompts,
            self.changes + other.changes,
            self.conversations + other.conversations,
            self.cost + other.cost,
            self.full_cost + other.full_cost,
            self.sent + other.sent,
            self.full_sent + other.full_sent,
        )


def played(
    options: Options, requests: Sequence[Request], ranker: Ranker, omitted_share: float
) -> list[Played]:
    """The conversations, by task."""
    agents = list(trajectories(options))
    tools = _tools(agents, requests)
    modulus, first = TASKS_APART
    chosen = [agent for agent in agents if int(agent.task) % modulus >= first]
    policy = PruningPolicy(omitted_share)

    @cache
    def probable(question: str) -> Sequence[float]:
        return ranker.ranked(Request("", question, tools, ""), tools).probable

    tasks: dict[str, Played] = {}
    for agent in chosen[: 8 if options.quick else None]:
        sent = [
            pruned.kept
            if isinstance(pruned := prune(tools, steps, (), probable, policy), Pruned)
            else tools
            for steps in _steps(agent.turns)
        ]
        tasks[agent.task] = tasks.get(agent.task, Played()).plus(_judged(agent, tools, sent))
    return list(tasks.values())


def conversation_figures(tasks: Sequence[Played]) -> dict[str, float]:
    """The figures of some tasks."""
    total = Played()
    for task in tasks:
        total = total.plus(task)
    return {
        "called_tool_kept": total.kept / max(1, total.calls),
        "conversation_cost_cut": 1 - total.cost / total.full_cost,
        "conversation_cost_cut_uncached": 1 - total.sent / total.full_sent,
        "changes_per_conversation": total.changes / total.conversations,
    }


def sources(options: Options) -> dict[str, str]:
    """Where the conversations come from."""
    return {TAU_BENCH: options.source(TAU_BENCH)}


def _tools(agents: Sequence[Trajectory], requests: Sequence[Request]) -> tuple[ToolSpec, ...]:
    """All functions of the agents, and others up to SIZE."""
    arguments: dict[str, set[str]] = {}
    for agent in agents:
        for tool in agent.tools:
            names = json.loads(tool.parameters or "{}").get("properties", {})
            arguments.setdefault(tool.name, set()).update(names)
    tools = {
        name: ToolSpec(
            name, name.replace("_", " "), json.dumps({"properties": dict.fromkeys(sorted(names))})
        )
        for name, names in arguments.items()
    }
    for request in random.Random(SEED).sample(requests, len(requests)):
        for tool in request.tools:
            if len(tools) < SIZE:
                tools.setdefault(tool.name, tool)
    return tuple(sorted(tools.values(), key=lambda tool: tool.name))


def _steps(turns: Sequence[Turn]) -> Iterator[list[Step]]:
    """What the tools of each prompt depend on; a prompt precedes each assistant's turn."""
    steps: list[Step] = []
    for turn in turns:
        if turn.role == "assistant":
            yield list(steps)
            if names := _called(turn):
                steps.append(Called(names))
        elif turn.role == "user":
            steps.append(Asked(turn.content))


def _called(turn: Turn) -> tuple[str, ...]:
    """The tools that a turn calls; the recording's calls stand as JSON behind its text."""
    start = turn.content.find('[{"')
    if start < 0:
        return ()
    try:
        calls: list[dict[str, Any]] = json.loads(turn.content[start:])
    except ValueError:
        return ()
    return tuple(call["function"]["name"] for call in calls if "function" in call)


def _judged(
    agent: Trajectory, tools: tuple[ToolSpec, ...], sent: Sequence[tuple[ToolSpec, ...]]
) -> Played:
    calls = kept = changes = 0
    cost = full_cost = 0.0
    size = full_size = 0
    before = all_before = ""
    answers = [place for place, turn in enumerate(agent.turns) if turn.role == "assistant"]
    for number, (place, now) in enumerate(zip(answers, sent, strict=True)):
        names = {tool.name for tool in now}
        called = _called(agent.turns[place])
        calls += len(called)
        kept += sum(name in names for name in called)
        changes += number > 0 and now != sent[number - 1]
        prompt = _serialised(now, agent.turns[:place])
        all_prompt = _serialised(tools, agent.turns[:place])
        cost += _price(before, prompt)
        full_cost += _price(all_before, all_prompt)
        size, full_size = size + len(prompt), full_size + len(all_prompt)
        before, all_before = prompt, all_prompt
    return Played(calls, kept, len(sent), changes, 1, cost, full_cost, size, full_size)


def _serialised(tools: Sequence[ToolSpec], turns: Sequence[Turn]) -> str:
    """The prompt in the order in which providers match prefixes."""
    parts = [f"{tool.name}\x1f{tool.description}\x1f{tool.parameters}" for tool in tools]
    parts += [f"{turn.role}\x1f{turn.tool_call_id}\x1f{turn.content}" for turn in turns]
    return "\x1e".join(parts)


def _price(before: str, now: str) -> float:
    read = shared_prefix_bytes(before, now)
    return READ_PRICE * read + WRITE_PRICE * (len(now.encode()) - read)
