"""The requests of a run: as an agent sends them, and as a careful client writes them itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import Enum

from penstock.bench.agent_replay.traffic.heads import head_of
from penstock.bench.agent_replay.traffic.recordings import MODEL, Json, RecordedRun

CHAT_PATH = "/v1/chat/completions"


class Writing(Enum):
    """How a client writes its requests."""

    AS_RECORDED = "as recorded"
    """With the volatile head before the instructions, and tools in the order of a set."""
    CAREFUL = "careful"
    """What changes stands at the end, and tools are in one order."""


def chat_body(run: RecordedRun, call: int, writing: Writing) -> Json:
    """The body of a run's call, counted from 0."""
    messages = list(run.prompt(run.ends[call]))
    tools = list(run.tools)
    if run.head:
        head = head_of(run.head, run.name, call)
        messages = _with_head(messages, head, writing)
        if writing is Writing.AS_RECORDED:
            random.Random(f"tools {run.name} {call}").shuffle(tools)
    fields = {"tools": tools} if tools else {}
    return {"model": MODEL, "messages": messages, **fields, **run.settings}


def _with_head(messages: Sequence[Json], head: str, writing: Writing) -> list[Json]:
    if writing is Writing.CAREFUL:
        return [*messages, {"role": "system", "content": head}]
    instructions, *others = messages
    content = f"{head}\n{instructions['content']}"
    return [{**instructions, "content": content}, *others]
