"""Prompt optimiser: input cost under provider prefix caching, tokens saved without and with loss,
and proof that nothing breaks.

Conversations are tau-bench trajectories, each assistant turn one call. `volatile_head` sends them
as many agents do: a clock and an id at the head of the system prompt, and the tools in changing
order. Prefix reads cost 0.1, writes 1.25 times an input token.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.prompts.conversation import Conversation, Policy, ToolSpec, Turn, estimate_tokens
from penstock.prompts.json_text import compact, minify
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.references import resolve_references
from penstock.prompts.stability import shared_prefix_bytes

READ, WRITE = 0.1, 1.25
SEED = 20260301
KEEP_SHARE = 0.45
"""Share of a block's tokens that lossy selection keeps; fixed beforehand."""

_IDENTIFIER = re.compile(
    r"[\w.+-]+@[\w.-]+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|\b(?=\w*\d)(?=\w*[A-Za-z_])\w{4,}\b|\b\d{3,}\b"
)

Trajectory = tuple[tuple[Turn, ...], tuple[ToolSpec, ...]]


def run(options: Options) -> Result:
    trajectories = list(_trajectories(options))[: 5 if options.quick else None]
    cost = {
        name: _costs(trajectories, volatile)
        for name, volatile in (("volatile", True), ("as_sent", False))
    }
    kept, cut, questions = _lossy(options)
    tokens_before, tokens_after, micro_s, size_kb = _lossless(trajectories)
    figures = {
        "cost_cut_volatile_head": 1 - cost["volatile"][1] / cost["volatile"][0],
        "cost_cut_as_sent": 1 - cost["as_sent"][1] / cost["as_sent"][0],
        "lossless_token_cut": 1 - tokens_after / tokens_before,
        "lossless_tool_cut": (tokens_before - tokens_after) / _tool_tokens(trajectories),
        "roundtrip_failures": _roundtrip_failures(trajectories, options),
        "identifiers_kept": _identifiers_kept(trajectories, options),
        "answer_kept": kept,
        "token_cut_lossy": cut,
        "us_per_kb": micro_s / size_kb,
    }
    bounds = {
        "cost_cut_volatile_head": Bound(">=", 0.60),
        "roundtrip_failures": Bound("<=", 0),
        "identifiers_kept": Bound(">=", 1.0),
        "answer_kept": Bound(">=", 0.98),
        "token_cut_lossy": Bound(">=", 0.5),
    }
    table = Table(
        "Input cost in tokens (read 0.1, written 1.25)",
        ("conversations", "before", "after"),
        tuple((name, float(before), float(after)) for name, (before, after) in cost.items()),
    )
    context = {
        "data": {
            name: options.source(name) for name in ("tau-bench", "xquad", "kv-retrieval", "bfcl")
        },
        "trajectories": len(trajectories),
        "questions": questions,
        "token_count": "estimate: four UTF-8 bytes a token, on both sides",
        "seed": SEED,
        "keep_share": KEEP_SHARE,
    }
    return Result(figures, bounds, context, (table,))


def _costs(trajectories: list[Trajectory], volatile: bool) -> tuple[float, float]:
    """Input cost of all calls, as sent and optimised."""
    rng = random.Random(SEED)
    optimiser = Optimiser(Policy())
    before = after = 0.0
    for turns, tools in trajectories:
        sent_prefix = shaped_prefix = ""
        for number, size in enumerate(
            index for index, turn in enumerate(turns) if turn.role == "assistant"
        ):
            sent = (
                _as_sent(turns[:size], tools, number, rng)
                if volatile
                else Conversation(turns[:size], tools)
            )
            shaped = optimiser.optimise(sent).conversation
            sent_text, shaped_text = _wire(sent), _wire(shaped)
            before += _price(sent_prefix, sent_text)
            after += _price(shaped_prefix, shaped_text)
            sent_prefix, shaped_prefix = sent_text, shaped_text
    return before, after


def _as_sent(
    turns: tuple[Turn, ...], tools: tuple[ToolSpec, ...], number: int, rng: random.Random
) -> Conversation:
    clock = f"Current time: 2026-03-01T10:{number % 60:02d}:{rng.randrange(60):02d}Z"
    request = f"Request id: {rng.randbytes(16).hex()}"
    system = Turn("system", f"{clock}\n{request}\n{turns[0].content}")
    return Conversation((system, *turns[1:]), tuple(rng.sample(tools, len(tools))))


def _wire(conversation: Conversation) -> str:
    """The bytes whose prefix a provider matches: tools, then turns."""
    tools = [
        f"{tool.name}\x1f{tool.description}\x1f{tool.parameters}\x1e" for tool in conversation.tools
    ]
    return "".join(
        [
            *tools,
            *(
                f"{turn.role}\x1f{turn.tool_call_id}\x1f{turn.content}\x1e"
                for turn in conversation.turns
            ),
        ]
    )


def _price(previous: str, text: str) -> float:
    shared = shared_prefix_bytes(previous, text)
    size = len(text.encode())
    return (READ * shared + WRITE * (size - shared)) / 4


def _lossless(trajectories: list[Trajectory]) -> tuple[int, int, float, float]:
    optimiser = Optimiser(Policy(stable_prefix=False))
    before = after = 0
    size = 0
    began = time.process_time()
    for turns, tools in trajectories:
        result = optimiser.optimise(Conversation(turns, tools))
        before, after = before + result.tokens_before, after + result.tokens_after
        size += sum(len(turn.content) for turn in turns)
    return before, after, (time.process_time() - began) * 1e6, size / 1024


def _tool_tokens(trajectories: list[Trajectory]) -> int:
    """Tokens of the tool results, which alone may be shortened without loss."""
    return sum(
        estimate_tokens(turn.content)
        for turns, _ in trajectories
        for turn in turns
        if turn.role == "tool"
    )


def _roundtrip_failures(trajectories: list[Trajectory], options: Options) -> int:
    """JSON whose values are not those of the original, and tool results that do not come back from
    their names.
    """
    texts = [turn.content for turns, _ in trajectories for turn in turns if turn.role == "tool"]
    texts += [json.dumps(dict(record), indent=2) for record in _key_values(options)]
    minified = sum(
        1
        for text in texts
        if (shorter := minify(text)) is not None and _lexemes(shorter) != _lexemes(text)
    )
    return minified + sum(_not_restored(turns) for turns, _ in trajectories)


def _not_restored(turns: tuple[Turn, ...]) -> int:
    """Tool results of a trajectory that read differently once every name is replaced by what it
    stands for.
    """
    failures, known = 0, dict[str, str]()
    shaped = Optimiser(Policy(stable_prefix=False)).optimise(Conversation(turns)).conversation.turns
    for turn, sent in zip(turns, shaped, strict=True):
        if turn.role == "tool":
            text = resolve_references(sent.content, known.__getitem__)
            known.setdefault(turn.tool_call_id, compact(text) or text)
            failures += text != turn.content and _value(text) != _value(turn.content)
    return failures


def _value(text: str) -> Any:
    try:
        return _lexemes(text)
    except ValueError:
        return text.split()  # prose: only blank space may differ


def _lexemes(text: str) -> Any:
    """A second reading of JSON, independent of the optimiser's: numbers as text, objects as lists
    of pairs.
    """
    return json.loads(text, parse_float=str, parse_int=str, object_pairs_hook=list)


def _identifiers_kept(trajectories: list[Trajectory], options: Options) -> float:
    """Share of identifiers in the original prompts that the optimised prompts still hold."""
    conversations = [Conversation(turns, tools) for turns, tools in trajectories]
    conversations += [
        Conversation(
            (Turn("user", "Which value?"), Turn("tool", json.dumps(dict(record), indent=2), "c1"))
        )
        for record in _key_values(options)
    ]
    conversations += list(_requests(options))
    held = total = 0
    optimiser = Optimiser(Policy())
    for conversation in conversations:
        wanted = set(_IDENTIFIER.findall(_wire(conversation)))
        present = set(_IDENTIFIER.findall(_wire(optimiser.optimise(conversation).conversation)))
        held, total = held + len(wanted & present), total + len(wanted)
    return held / total


def _lossy(options: Options) -> tuple[float, float, int]:
    """Answers kept and tokens cut when each question meets its own passage among four others."""
    optimiser = Optimiser(Policy(keep_share=KEEP_SHARE))
    rng = random.Random(SEED)
    samples = list(_questions(options))
    passages = sorted({passage for passage, _, _ in samples})
    samples = rng.sample(samples, 60) if options.quick and len(samples) > 60 else samples
    kept = before = after = 0
    for passage, question, answer in samples:
        mixed = [passage, *rng.sample([other for other in passages if other != passage], 4)]
        rng.shuffle(mixed)
        text = "\n\n".join(mixed)
        shaped = optimiser.optimise(
            Conversation((Turn("user", question), Turn("tool", text, "c1")))
        ).conversation
        kept += answer in shaped.turns[1].content
        before += estimate_tokens(text)
        after += estimate_tokens(shaped.turns[1].content)
    return kept / len(samples), 1 - after / before, len(samples)


def _trajectories(options: Options) -> Iterator[Trajectory]:
    if options.source("tau-bench") == "generated" or options.data is None:
        yield from _generated_trajectories()
        return
    path = next((options.data / "tau-bench").glob("*.json"))
    for record in json.loads(path.read_text()):
        turns = tuple(_turn(message) for message in record["traj"])
        yield turns, _tools(record["traj"])


def _turn(message: dict[str, Any]) -> Turn:
    calls = message.get("tool_calls")
    content = (message.get("content") or "") + (json.dumps(calls) if calls else "")
    return Turn(message["role"], content, message.get("tool_call_id", ""))


def _tools(messages: list[dict[str, Any]]) -> tuple[ToolSpec, ...]:
    """The functions a trajectory calls, with the argument names it uses; the data set does not
    carry the schemas.
    """
    arguments: dict[str, set[str]] = {}
    for call in (call for message in messages for call in message.get("tool_calls") or []):
        arguments.setdefault(call["function"]["name"], set()).update(
            json.loads(call["function"]["arguments"])
        )
    return tuple(
        ToolSpec(
            name,
            name.replace("_", " "),
            json.dumps({"type": "object", "properties": {key: {} for key in sorted(keys)}}),
        )
        for name, keys in arguments.items()
    )


def _generated_trajectories() -> Iterator[Trajectory]:
    rng = random.Random(SEED)
    tools = tuple(
        ToolSpec(f"tool_{index}", "look something up", '{"type": "object"}') for index in range(6)
    )
    for _ in range(20):
        turns = [Turn("system", "You help travellers. " * 200)]
        for step in range(8):
            rows = [
                {"flight": f"PS{rng.randrange(1000)}", "price": rng.randrange(900)}
                for _ in range(8)
            ]
            turns += [
                Turn("user", f"step {step}: which flight costs least?"),
                Turn("assistant", f"I look it up, step {step}."),
                Turn("tool", json.dumps(rows, indent=2), f"c{step}"),
                Turn("assistant", "The first one."),
            ]
        yield tuple(turns), tools


def _questions(options: Options) -> Iterator[tuple[str, str, str]]:
    if options.source("xquad") == "generated" or options.data is None:
        for index in range(40):
            fact = (
                f"The lighthouse of bay {index} was built in {1700 + index} by the guild of "
                f"masons number {index}."
            )
            yield (
                f"{fact} It stands on rock. " * 2,
                f"When was the lighthouse of bay {index} built?",
                str(1700 + index),
            )
        return
    path = next((options.data / "xquad").glob("*.json"))
    for article in json.loads(path.read_text())["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield paragraph["context"], question["question"], question["answers"][0]["text"]


def _key_values(options: Options) -> Iterator[list[list[str]]]:
    path = _first(options, "kv-retrieval")
    if path is None:
        rng = random.Random(SEED)
        yield from (
            [[rng.randbytes(16).hex(), rng.randbytes(16).hex()] for _ in range(75)]
            for _ in range(20)
        )
        return
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)["ordered_kv_records"]


def _requests(options: Options) -> Iterator[Conversation]:
    path = _first(options, "bfcl")
    if path is None:
        return
    for line in path.read_text().splitlines():
        record = json.loads(line)
        tools = tuple(
            ToolSpec(
                tool["name"],
                tool["description"],
                json.dumps(tool["parameters"], ensure_ascii=False),
            )
            for tool in record["function"]
        )
        yield Conversation(
            tuple(Turn(turn["role"], turn["content"]) for turn in record["question"][0]), tools
        )


def _first(options: Options, folder: str) -> Path | None:
    if options.data is None or not (options.data / folder).exists():
        return None
    return next(
        (path for path in sorted((options.data / folder).iterdir()) if path.is_file()), None
    )
