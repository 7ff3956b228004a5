"""Recorded runs of agents: the conversation of each, and which of its turns a model gave.

A run is played call by call. The prompt of a call is the recording up to a turn of the assistant,
whatever was answered before, so that every arm asks the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from penstock.bench.harness.options import Options
from penstock.bench.tokens.data import TAU_BENCH, trajectories

Json = dict[str, Any]
MODEL = "agent-model"
DEVELOPMENT_OF_FIVE = 2
"""Tasks whose number is below this modulo 5 are for development, the others are reported."""


def text_of(message: Json) -> str:
    """A message's text, whether it is one text or parts."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.get("text", "") for part in content)


@dataclass(frozen=True)
class RecordedRun:
    """A conversation as it was recorded.

    Attributes:
        name: of the run, different for each.
        cluster: what it belongs with when intervals are drawn: runs of the same task are alike.
        messages: all turns, as OpenAI's chat completions have them.
        tools: as the same has them.
        settings: further fields of each request.
        head: style of the volatile head of its instructions; empty for none. See `heads`.
    """

    name: str
    cluster: str
    messages: tuple[Json, ...]
    tools: tuple[Json, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: str = ""

    @property
    def ends(self) -> tuple[int, ...]:
        """The positions of the turns that a model gave: one call each."""
        return tuple(
            place for place, turn in enumerate(self.messages) if turn["role"] == "assistant"
        )

    def prompt(self, end: int) -> tuple[Json, ...]:
        """What a model was asked for the turn at a position."""
        return self.messages[:end]


def first_calls(run: RecordedRun, count: int) -> RecordedRun:
    """A run up to its so many first calls."""
    ends = run.ends[:count]
    return replace(run, messages=run.messages[: ends[-1] + 1])


def write_runs(path: Path, runs: Sequence[RecordedRun]) -> None:
    """Write runs for the other processes, a JSON object a line."""
    path.write_text("".join(json.dumps(vars(run)) + "\n" for run in runs), encoding="utf-8")


def read_runs(path: Path) -> list[RecordedRun]:
    """What `write_runs` has written."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        RecordedRun(**{**row, "messages": tuple(row["messages"]), "tools": tuple(row["tools"])})
        for row in rows
    ]


def tau_runs(options: Options, *, development: bool) -> list[RecordedRun]:
    """The conversations of tau-bench's airline agent (Yao et al., 2024), or generated ones.

    Args:
        options: of the command line.
        development: the tasks for development, else those that are reported.
    """
    folder = options.folder(TAU_BENCH)
    if folder is None:
        return list(_generated_runs(options))
    records = json.loads(next(folder.glob("*.json")).read_text())
    tools = _tools(record["traj"] for record in records)
    return [
        RecordedRun(
            name=f"tau-{record['task_id']}-{record['trial']}",
            cluster=f"tau-{record['task_id']}",
            messages=tuple(_message(turn) for turn in record["traj"]),
            tools=tools,
            settings={"temperature": 0.0},
        )
        for record in records
        if (record["task_id"] % 5 < DEVELOPMENT_OF_FIVE) == development
    ]


def _message(turn: Json) -> Json:
    """A turn with the fields that a client sends back."""
    known = ("role", "content", "tool_calls", "tool_call_id")
    return {name: turn[name] for name in known if name in turn}


def _tools(conversations: Iterator[Sequence[Json]]) -> tuple[Json, ...]:
    """The functions that the agent has, in the order in which they were first called, with the
    types of their arguments as they were given.

    The data set lacks the schemas, so these are shorter than the agent's own.
    """
    properties: dict[str, dict[str, str]] = {}
    for messages in conversations:
        for message in messages:
            for call in message.get("tool_calls") or []:
                known = properties.setdefault(call["function"]["name"], {})
                for name, value in json.loads(call["function"]["arguments"]).items():
                    known.setdefault(name, _json_type(value))
    return tuple(_function(name, properties[name]) for name in properties)


def _function(name: str, properties: Mapping[str, str]) -> Json:
    schema = {
        "type": "object",
        "properties": {each: {"type": kind} for each, kind in sorted(properties.items())},
        "required": sorted(properties),
    }
    described = {"name": name, "description": name.replace("_", " "), "parameters": schema}
    return {"type": "function", "function": described}


def _json_type(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "null"


def _generated_runs(options: Options) -> Iterator[RecordedRun]:
    """The generated conversations of the tokens benchmark as runs."""
    for number, trajectory in enumerate(trajectories(options)):
        tools = tuple(_function(tool.name, {}) for tool in trajectory.tools)
        turns: list[Json] = []
        for turn in trajectory.turns:
            message: Json = {"role": turn.role, "content": turn.content}
            if turn.role == "tool":
                call = {"name": trajectory.tools[0].name, "arguments": "{}"}
                identifier = f"{turn.tool_call_id}-{number}"
                turns[-1]["tool_calls"] = [{"id": identifier, "type": "function", "function": call}]
                message["tool_call_id"] = identifier
            turns.append(message)
        settings = {"temperature": 0.0}
        yield RecordedRun(f"made-{number}", f"made-{number}", tuple(turns), tools, settings)
