"""The prompt optimiser: input cost under provider prefix caching, tokens saved, nothing broken.

Conversations are tau-bench trajectories, each assistant turn one call. `volatile_head` sends them
as many agents do: a clock and an id at the head of the system prompt, and the tools in changing
order; the model's rule says that it takes a later system turn. A token read from the prefix cache
costs 0.1, one written to it 1.25 input tokens.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.tokens.data import (
    DATA_SETS,
    SEED,
    Trajectory,
    function_requests,
    key_value_records,
    questions,
    trajectories,
)
from penstock.prompts.conversation import Conversation, Policy, Turn, estimate_tokens
from penstock.prompts.json_text import compact, minify
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix import shared_prefix_bytes
from penstock.prompts.references import resolve_references

READ_PRICE, WRITE_PRICE = 0.1, 1.25
KEEP_SHARE = 0.45
"""Share of a block's tokens that lossy selection keeps; chosen beforehand."""
OTHER_PASSAGES = 4
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


class Change(NamedTuple):
    """A size or cost before and after the optimiser."""

    before: float
    after: float

    @property
    def cut(self) -> float:
        """Share that was saved."""
        return 1 - self.after / self.before


def run(options: Options) -> Result:
    """Measure."""
    agents = list(trajectories(options))[: 5 if options.quick else None]
    volatile = _cost(agents, volatile_head=True)
    as_sent = _cost(agents, volatile_head=False)
    tokens, us_per_kb = _lossless(agents)
    lossy = _lossy(options)
    figures = {
        "cost_cut_volatile_head": volatile.cut,
        "cost_cut_as_sent": as_sent.cut,
        "lossless_token_cut": tokens.cut,
        "lossless_tool_cut": (tokens.before - tokens.after) / _tool_tokens(agents),
        "roundtrip_failures": _roundtrip_failures(agents, options),
        "identifiers_kept": _identifiers_kept(agents, options),
        "answer_kept": lossy.answers_kept,
        "token_cut_lossy": lossy.tokens.cut,
        "us_per_kb": us_per_kb,
    }
    table = Table(
        "Input cost in tokens (read 0.1, written 1.25)",
        ("conversations", "before", "after"),
        (("volatile", *volatile), ("as_sent", *as_sent)),
    )
    context = {
        "data": {name: options.source(name) for name in DATA_SETS},
        "trajectories": len(agents),
        "questions": lossy.questions,
        "token_count": "estimate: four UTF-8 bytes a token, on both sides",
        "seed": SEED,
        "keep_share": KEEP_SHARE,
    }
    return Result(figures, BOUNDS, context, (table,))


def _cost(agents: Iterable[Trajectory], *, volatile_head: bool) -> Change:
    """Input cost of all calls, in input tokens."""
    rng = random.Random(SEED)
    optimiser = Optimiser(Policy(later_system_turn=True))
    before = after = 0.0
    for turns, tools in agents:
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
    return Change(before, after)


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


def _lossless(agents: Sequence[Trajectory]) -> tuple[Change, float]:
    """Tokens of all prompts, and CPU microseconds a kilobyte."""
    optimiser = Optimiser(Policy(stable_prefix=False))
    before = after = characters = 0
    began_s = time.process_time()
    for turns, tools in agents:
        result = optimiser.optimise(Conversation(turns, tools))
        before += result.tokens_before
        after += result.tokens_after
        characters += sum(len(turn.content) for turn in turns)
    took_us = (time.process_time() - began_s) * 1e6
    return Change(before, after), took_us / (characters / 1024)


def _tool_tokens(agents: Iterable[Trajectory]) -> int:
    """Tokens of the tool results, the only text that may be shortened without loss."""
    return sum(estimate_tokens(text) for text in _tool_results(agents))


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


def _identifiers_kept(agents: Sequence[Trajectory], options: Options) -> float:
    """Share of the identifiers in the original prompts that the optimised ones still have."""
    conversations = [Conversation(turns, tools) for turns, tools in agents]
    conversations += [_record_conversation(record) for record in key_value_records(options)]
    conversations += list(function_requests(options))
    kept = total = 0
    optimiser = Optimiser(Policy())
    for conversation in conversations:
        shaped = optimiser.optimise(conversation).conversation
        before = set(_IDENTIFIER.findall(_serialised(conversation)))
        kept += len(before & set(_IDENTIFIER.findall(_serialised(shaped))))
        total += len(before)
    return kept / total


def _record_conversation(record: Iterable[list[str]]) -> Conversation:
    text = json.dumps(dict(record), indent=2)
    return Conversation((Turn("user", "Which value?"), Turn("tool", text, "c1")))


class Lossy(NamedTuple):
    """What lossy selection did: share of answers kept, tokens, number of questions."""

    answers_kept: float
    tokens: Change
    questions: int


def _lossy(options: Options) -> Lossy:
    """Each question meets its own passage among four others."""
    optimiser = Optimiser(Policy(keep_share=KEEP_SHARE))
    rng = random.Random(SEED)
    samples = list(questions(options))
    passages = sorted({sample.passage for sample in samples})
    if options.quick and len(samples) > 60:
        samples = rng.sample(samples, 60)
    kept = before = after = 0
    for passage, question, answer in samples:
        others = [other for other in passages if other != passage]
        mixed = [passage, *rng.sample(others, OTHER_PASSAGES)]
        rng.shuffle(mixed)
        text = "\n\n".join(mixed)
        turns = (Turn("user", question), Turn("tool", text, "c1"))
        shaped = optimiser.optimise(Conversation(turns)).conversation.turns[1].content
        kept += answer in shaped
        before += estimate_tokens(text)
        after += estimate_tokens(shaped)
    return Lossy(kept / len(samples), Change(before, after), len(samples))
