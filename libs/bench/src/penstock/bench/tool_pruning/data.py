"""BFCL's requests, each with the function that it needs, and sets of tools made of many of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from penstock.bench.harness.options import Options
from penstock.prompts.conversation import ToolSpec

SEED = 20261129
BFCL = "bfcl"
REQUESTS, ANSWERS = "live_multiple.jsonl", "live_multiple_answers.jsonl"
"""`BFCL_v4_live_multiple.json`, and the file of that name in `possible_answer`."""


class Request(NamedTuple):
    """A user's request.

    Attributes:
        group: requests of one group were made for the same functions.
        text: the user's turns.
        tools: the functions that came with it.
        needed: the name of the one that answers it.
    """

    group: str
    text: str
    tools: tuple[ToolSpec, ...]
    needed: str


class Halves(NamedTuple):
    """Requests on which constants are chosen, and those that are reported; no group is in both."""

    chosen_on: list[Request]
    reported: list[Request]


def halves(options: Options) -> Halves:
    """All requests, divided by groups drawn at random."""
    found = requests(options)
    groups = sorted({request.group for request in found}, key=lambda name: (len(name), name))
    random.Random(SEED).shuffle(groups)
    first = set(groups[::2])
    return Halves(
        [request for request in found if request.group in first],
        [request for request in found if request.group not in first],
    )


def requests(options: Options) -> list[Request]:
    """The requests of the Berkeley Function Calling Leaderboard, or generated ones where it or its
    answers are not there.
    """
    folder = options.folder(BFCL)
    if folder is None:
        return _generated()
    if not (folder / ANSWERS).exists():
        options.stood_in.add(f"{BFCL}/{ANSWERS}")
        return _generated()
    needed = {
        record["id"]: next(iter(record["ground_truth"][0])) for record in _records(folder / ANSWERS)
    }
    return [_request(record, needed[record["id"]]) for record in _records(folder / REQUESTS)]


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _request(record: dict[str, Any], needed: str) -> Request:
    """A record; the middle number of its id, `live_multiple_7-3-2`, is that of its functions."""
    group = record["id"].rsplit("_", 1)[1].split("-")[1]
    said = [turn["content"] for turn in record["question"][0] if turn["role"] == "user"]
    tools = (_tool(function) for function in record["function"])
    return Request(group, "\n".join(said), tuple(tools), needed)


def _tool(function: dict[str, Any]) -> ToolSpec:
    parameters = json.dumps(function["parameters"], ensure_ascii=False, separators=(",", ":"))
    return ToolSpec(function["name"], function["description"], parameters)


def _generated() -> list[Request]:
    things = (
        "invoice parcel flight hotel recipe song meeting ticket garden camera bicycle window lamp "
        "carpet piano novel painting coat ladder kettle mirror saddle tractor violin anchor basket "
        "cushion drill engine fence"
    )
    verbs = ("find", "cancel", "order", "describe", "repair", "rent", "sell", "insure")
    made = []
    for thing in things.split():
        tools = tuple(
            ToolSpec(f"{verb}_{thing}", f"To {verb} a {thing} of the user.", "{}") for verb in verbs
        )
        for verb in verbs:
            text = f"I would like you to {verb} the {thing} now"
            made.append(Request(thing, text, tools, f"{verb}_{thing}"))
    return made


def tool_set(
    request: Request, others: Sequence[Request], size: int, seed: object
) -> tuple[ToolSpec, ...]:
    """The request's own functions among those of other requests, drawn whole, until there are
    `size`; names are unique, the order is random.
    """
    rng = random.Random(f"{SEED} {seed} {size}")
    tools = {tool.name: tool for tool in request.tools}
    for tool in _drawn(others, rng):
        if len(tools) >= size:
            break
        tools.setdefault(tool.name, tool)
    mixed = list(tools.values())
    rng.shuffle(mixed)
    return tuple(mixed)


def _drawn(others: Sequence[Request], rng: random.Random) -> Iterable[ToolSpec]:
    for request in rng.sample(others, len(others)):
        yield from request.tools
