"""The conversations, questions and records of the tokens benchmark, public or generated."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from penstock.bench.harness.options import Options
from penstock.prompts.conversation import Conversation, ToolSpec, Turn

SEED = 20260301
TAU_BENCH, XQUAD, KV_RETRIEVAL, BFCL = "tau-bench", "xquad", "kv-retrieval", "bfcl"
DATA_SETS = (TAU_BENCH, XQUAD, KV_RETRIEVAL, BFCL)


class Trajectory(NamedTuple):
    """One agent's conversation and the tools that it calls; attempts at one task are alike."""

    task: str
    turns: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...]


class Question(NamedTuple):
    """A question, the passage that answers it, and the answer."""

    passage: str
    question: str
    answer: str


def trajectories(options: Options) -> Iterator[Trajectory]:
    """The trajectories of tau-bench (Yao et al., 2024), or generated ones."""
    folder = options.folder(TAU_BENCH)
    if folder is None:
        yield from _generated_trajectories()
        return
    for record in json.loads(next(folder.glob("*.json")).read_text()):
        turns = tuple(_turn(message) for message in record["traj"])
        yield Trajectory(str(record["task_id"]), turns, _tools(record["traj"]))


def _turn(message: dict[str, Any]) -> Turn:
    calls = message.get("tool_calls")
    content = (message.get("content") or "") + (json.dumps(calls) if calls else "")
    return Turn(message["role"], content, message.get("tool_call_id", ""))


def _tools(messages: Sequence[dict[str, Any]]) -> tuple[ToolSpec, ...]:
    """The functions that a trajectory calls, with the names of their arguments.

    The data set does not have the schemas.
    """
    arguments: dict[str, set[str]] = {}
    for message in messages:
        for call in message.get("tool_calls") or []:
            names = json.loads(call["function"]["arguments"])
            arguments.setdefault(call["function"]["name"], set()).update(names)
    return tuple(
        ToolSpec(name, name.replace("_", " "), _schema(arguments[name])) for name in arguments
    )


def _schema(arguments: set[str]) -> str:
    return json.dumps({"type": "object", "properties": {name: {} for name in sorted(arguments)}})


def _generated_trajectories() -> Iterator[Trajectory]:
    rng = random.Random(SEED)
    tools = tuple(
        ToolSpec(f"tool_{index}", "look something up", '{"type": "object"}') for index in range(6)
    )
    for task in range(20):
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
        yield Trajectory(str(task), tuple(turns), tools)


def questions(options: Options) -> Iterator[Question]:
    """The questions of XQuAD (Artetxe et al., 2020), or generated ones."""
    folder = options.folder(XQUAD)
    if folder is None:
        yield from (_generated_question(number) for number in range(40))
        return
    for article in json.loads(next(folder.glob("*.json")).read_text())["data"]:
        for paragraph in article["paragraphs"]:
            for row in paragraph["qas"]:
                answer = row["answers"][0]["text"]
                yield Question(paragraph["context"], row["question"], answer)


def _generated_question(number: int) -> Question:
    year = str(1700 + number)
    builders = f"the guild of masons number {number}"
    fact = f"The lighthouse of bay {number} was built in {year} by {builders}."
    question = f"When was the lighthouse of bay {number} built?"
    return Question(f"{fact} It stands on rock. " * 2, question, year)


def key_value_records(options: Options) -> Iterator[list[list[str]]]:
    """Lists of pairs of identifiers (Liu et al., "Lost in the Middle", 2023), or generated ones."""
    path = _first_file(options, KV_RETRIEVAL)
    if path is None:
        rng = random.Random(SEED)
        for _ in range(20):
            yield [[rng.randbytes(16).hex(), rng.randbytes(16).hex()] for _ in range(75)]
        return
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)["ordered_kv_records"]


def function_requests(options: Options) -> Iterator[Conversation]:
    """The requests of the Berkeley Function Calling Leaderboard; none where it is not there."""
    path = _first_file(options, BFCL)
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
        turns = tuple(Turn(turn["role"], turn["content"]) for turn in record["question"][0])
        yield Conversation(turns, tools)


def _first_file(options: Options, name: str) -> Path | None:
    folder = options.folder(name)
    if folder is None:
        return None
    return next((path for path in sorted(folder.iterdir()) if path.is_file()), None)
