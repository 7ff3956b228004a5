"""The prompt optimiser: input cost under a simulated provider's prefix caching, tokens saved,
nothing broken.

Conversations are tau-bench trajectories, each assistant turn one call. `volatile_head` sends them
as many agents do: a clock and an id at the head of the system prompt, and the tools in changing
order; the model's rule says that it takes a later system turn. A token read from the prefix cache
costs 0.1, one written to it 1.25 input tokens. The head's form is one that the optimiser has a rule
for: the figure says what that rule saves, not how often it applies. Intervals are over the tasks,
whose attempts are alike, and over the passages of the questions.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from penstock.bench.harness.intervals import bootstrap, of_share
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.tokens.data import (
    DATA_SETS,
    SEED,
    Trajectory,
    function_requests,
    key_value_records,
    trajectories,
)
from penstock.bench.tokens.lossy import KEEP_SHARE, lossy_figures, questions_by_passage
from penstock.bench.tokens.sizes import Change, total
from penstock.prompts.conversation import Conversation, Policy, Turn, estimate_tokens
from penstock.prompts.json_text import compact, minify
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix import shared_prefix_bytes
from penstock.prompts.references import resolve_references

READ_PRICE, WRITE_PRICE = 0.1, 1.25
BYTES_PER_TOKEN = 4
UNIT, RECORD = "\x1f", "\x1e"
"""Separators of a serialised prompt."""
BOUNDS = {
    "cost_cut_volatile_head": Bound(">=", 0.60),
    "roundtrip_failures": Bound("<=", 0),
    "identifiers_kept": Bound(">=", 1.0),
    "answer_kept": Bound(">=", 0.98),
    "token_cut_lossy": Bound(">=", 0.5),
}

_IDENTIFIER = re.compile(
    r"[\w.+-]+@[\w.-]+"
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}"
    r"|\b(?=\w*\d)(?=\w*[A-Za-z_])\w{4,}\b"
    r"|\b\d{3,}\b"
)


class Costs(NamedTuple):
    """What the conversations of one task cost and hold, in input tokens."""

    volatile: Change = Change(0, 0)
    as_sent: Change = Change(0, 0)
    lossless: Change = Change(0, 0)
    tool_tokens: int = 0


def run(options: Options) -> Result:
    """Measure."""
    agents = list(trajectories(options))[: 5 if options.quick else None]
    costs = _by_task(agents)
    lossy = questions_by_passage(options)
    figures = _cost_figures(costs) | lossy_figures(lossy)
    identifiers = _identifiers(agents, options)
    figures |= {
        "roundtrip_failures": _roundtrip_failures(agents, options),
        "identifiers_kept": 1 - identifiers.lost / identifiers.all,
        "identifiers_lost_share": identifiers.lost / identifiers.all,
        "us_per_kb": _us_per_kb(agents),
    }
    intervals = bootstrap(costs, _cost_figures, "tasks")
    intervals |= bootstrap(lossy, lossy_figures, "passages")
    intervals["identifiers_lost_share"] = of_share(identifiers.lost, identifiers.all, "identifiers")
    table = Table(
        "Input cost in tokens (read 0.1, written 1.25)",
        ("conversations", "before", "after"),
        (
            ("volatile", *total(cost.volatile for cost in costs)),
            ("as_sent", *total(cost.as_sent for cost in costs)),
        ),
    )
    context = {
        "data": {name: options.source(name) for name in DATA_SETS},
        "trajectories": len(agents),
        "questions": sum(passage.questions for passage in lossy),
        "token_count": "estimate: four UTF-8 bytes a token, on both sides",
        "seed": SEED,
        "keep_share": KEEP_SHARE,
    }
    exact = frozenset({"roundtrip_failures", "identifiers_kept"})
    return Result(figures, BOUNDS, context, (table,), intervals=intervals, exact=exact)


def _by_task(agents: Sequence[Trajectory]) -> list[Costs]:
    """What the conversations of each task cost, all of them shaped by the same optimisers."""
    volatile, as_sent = _costs(agents, volatile_head=True), _costs(agents, volatile_head=False)
    tasks: dict[str, Costs] = {}
    for agent, *changes in zip(agents, volatile, as_sent, map(_lossless, agents), strict=True):
        had = tasks.get(agent.task, Costs())
        tasks[agent.task] = Costs(
            had.volatile.plus(changes[0]),
            had.as_sent.plus(changes[1]),
            had.lossless.plus(changes[2]),
            had.tool_tokens + _tool_tokens(agent),
        )
    return list(tasks.values())


def _cost_figures(costs: Sequence[Costs]) -> dict[str, float]:
    lossless = total(cost.lossless for cost in costs)
    tool_tokens = sum(cost.tool_tokens for cost in costs)
    return {
        "cost_cut_volatile_head": total(cost.volatile for cost in costs).cut,
        "cost_cut_as_sent": total(cost.as_sent for cost in costs).cut,
        "lossless_token_cut": lossless.cut,
        "lossless_tool_cut": (lossless.before - lossless.after) / max(1, tool_tokens),
    }


def _costs(agents: Iterable[Trajectory], *, volatile_head: bool) -> list[Change]:
    """Input cost of each agent's calls, in input tokens."""
    rng = random.Random(SEED)
    optimiser = Optimiser(Policy(later_system_turn=True))
    changes = []
    for _, turns, tools in agents:
        before = after = 0.0
        sent_text = shaped_text = ""
        call_sizes = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
        for number, size in enumerate(call_sizes):
            sent = Conversation(turns[:size], tools)
            if volatile_head:
                sent = _with_volatile_head(sent, number, rng)
            shaped = optimiser.optimise(sent).conversation
            previous_sent, previous_shaped = sent_text, shaped_text
            sent_text, shaped_text = _serialised(sent), _serialised(shaped)
            before += _price(previous_sent, sent_text)
            after += _price(previous_shaped, shaped_text)
        changes.append(Change(before, after))
    return changes


def _with_volatile_head(
    conversation: Conversation, number: int, rng: random.Random
) -> Conversation:
    """The conversation with a clock and an id at its head, and its tools in random order."""
    system, *turns = conversation.turns
    clock = f"Current time: 2026-03-01T10:{number % 60:02d}:{rng.randrange(60):02d}Z"
    request = f"Request id: {rng.randbytes(16).hex()}"
    head = Turn("system", f"{clock}\n{request}\n{system.content}")
    tools = tuple(rng.sample(conversation.tools, len(conversation.tools)))
    return Conversation((head, *turns), tools)


def _serialised(conversation: Conversation) -> str:
    """The prompt in the order in which providers match prefixes: tools, then turns."""
    tools = (_joined(tool.name, tool.description, tool.parameters) for tool in conversation.tools)
    turns = (_joined(turn.role, turn.tool_call_id, turn.content) for turn in conversation.turns)
    return "".join([*tools, *turns])


def _joined(*fields: str) -> str:
    return UNIT.join(fields) + RECORD


def _price(previous: str, text: str) -> float:
    """Cost of a prompt in input tokens, where its common prefix with the previous is cached."""
    read = shared_prefix_bytes(previous, text)
    written = len(text.encode()) - read
    return (READ_PRICE * read + WRITE_PRICE * written) / BYTES_PER_TOKEN


def _lossless(agent: Trajectory) -> Change:
    """Tokens of the agent's last prompt."""
    optimiser = Optimiser(Policy(stable_prefix=False))
    result = optimiser.optimise(Conversation(agent.turns, agent.tools))
    return Change(result.tokens_before, result.tokens_after)


def _us_per_kb(agents: Sequence[Trajectory]) -> float:
    """CPU microseconds a kilobyte of prompt."""
    characters = sum(len(turn.content) for agent in agents for turn in agent.turns)
    began_s = time.process_time()
    for agent in agents:
        _lossless(agent)
    return (time.process_time() - began_s) * 1e6 / (characters / 1024)


def _tool_tokens(agent: Trajectory) -> int:
    """Tokens of the tool results, the only text that may be shortened without loss."""
    return sum(estimate_tokens(text) for text in _tool_results((agent,)))


def _tool_results(agents: Iterable[Trajectory]) -> list[str]:
    return [turn.content for agent in agents for turn in agent.turns if turn.role == "tool"]


def _roundtrip_failures(agents: Sequence[Trajectory], options: Options) -> int:
    """JSON texts that lost a value, and tool results that references do not lead back to."""
    texts = _tool_results(agents)
    texts += [json.dumps(dict(record), indent=2) for record in key_value_records(options)]
    changed = 0
    for text in texts:
        shorter = minify(text)
        changed += shorter is not None and _lexemes(shorter) != _lexemes(text)
    return changed + sum(_unresolved(agent.turns) for agent in agents)


def _unresolved(turns: tuple[Turn, ...]) -> int:
    """Tool results that have another value once their references are resolved."""
    optimiser = Optimiser(Policy(stable_prefix=False))
    shaped = optimiser.optimise(Conversation(turns)).conversation.turns
    failures = 0
    known: dict[str, str] = {}
    for turn, sent in zip(turns, shaped, strict=True):
        if turn.role == "tool":
            text = resolve_references(sent.content, known.__getitem__)
            known.setdefault(turn.tool_call_id, compact(text) or text)
            failures += text != turn.content and _value(text) != _value(turn.content)
    return failures


def _value(text: str) -> Any:
    """The JSON value, or the words of a text that is no JSON."""
    try:
        return _lexemes(text)
    except ValueError:
        return text.split()


def _lexemes(text: str) -> Any:
    """A reading of JSON that is independent of the optimiser's.

    Numbers are texts, objects are lists of pairs.
    """
    return json.loads(text, parse_float=str, parse_int=str, object_pairs_hook=list)


class Identifiers(NamedTuple):
    """Identifiers in the original prompts, and those that the optimised ones no longer have."""

    all: int
    lost: int


def _identifiers(agents: Sequence[Trajectory], options: Options) -> Identifiers:
    conversations = [Conversation(turns, tools) for _, turns, tools in agents]
    conversations += [_record_conversation(record) for record in key_value_records(options)]
    conversations += list(function_requests(options))
    lost = total = 0
    optimiser = Optimiser(Policy())
    for conversation in conversations:
        shaped = optimiser.optimise(conversation).conversation
        before = set(_IDENTIFIER.findall(_serialised(conversation)))
        lost += len(before - set(_IDENTIFIER.findall(_serialised(shaped))))
        total += len(before)
    return Identifiers(total, lost)


def _record_conversation(record: Iterable[list[str]]) -> Conversation:
    text = json.dumps(dict(record), indent=2)
    return Conversation((Turn("user", "Which value?"), Turn("tool", text, "c1")))
