"""The recordings of the providers' own clients, where checkouts of them are named.

What must come out is computed here by the simplest reading there is: all data lines of the body,
their texts and arguments joined.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.bench.wires.corpus import split_failures
from penstock.bench.wires.playing import Played, played
from penstock.testkit.recordings import DEFAULT_PROVIDERS, Recording

Json = dict[str, Any]
CHECKOUTS = (
    ("PENSTOCK_OPENAI_PYTHON", "openai-chat", (".inline-snapshot/external/*.bin",)),
    (
        "PENSTOCK_ANTHROPIC_SDK",
        "anthropic-messages",
        ("tests/lib/streaming/fixtures/*.txt", "tests/fixtures/*/*.sse"),
    ),
)
"""The variable that names a checkout, its wire, and where its recordings are."""
SPLIT_EVERY = 7


def figures(failures: list[str]) -> dict[str, int]:
    """How many recordings the checkouts have, and how many are read wrong."""
    found = list(sdk_recordings())
    failed = 0
    for recording in found:
        wrong = problems(recording)
        failures += wrong
        failed += bool(wrong)
    return {"sdk_recordings": len(found), "sdk_recordings_failed": failed}


def sdk_recordings() -> Iterator[Recording]:
    """The recordings of the checkouts that are named."""
    for variable, wire, patterns in CHECKOUTS:
        checkout = os.environ.get(variable)
        files = [path for each in patterns for path in Path(checkout or ".").glob(each)]
        for path in sorted(files) if checkout else ():
            provider = DEFAULT_PROVIDERS[wire]
            yield Recording(path.name, wire, "", provider, True, {}, path.read_bytes())


def problems(recording: Recording) -> list[str]:
    """What is wrong with how a recording is read."""
    values = [
        json.loads(line[5:])
        for line in recording.body.splitlines()
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]"
    ]
    expected = _openai(values) if recording.wire == "openai-chat" else _anthropic(values)
    came = played(recording)
    if came.result is None:
        return [f"{recording}: {came.fault}"]
    got = _read(came)
    wrong = [f"{recording}: {got!r}, not {expected!r}"] if got != expected else []
    return wrong + split_failures(recording, SPLIT_EVERY)


def _read(came: Played) -> tuple[str, str, list[str], list[str]]:
    assert came.result is not None
    message = came.result.generate.message
    calls = message.tool_calls
    return (
        message.content,
        message.refusal,
        [call.name for call in calls],
        ["" if call.arguments_json == "{}" else call.arguments_json for call in calls],
    )


def _openai(values: list[Json]) -> tuple[str, str, list[str], list[str]]:
    text = refusal = ""
    calls: dict[int, list[str]] = {}
    for value in values:
        for choice in value["choices"]:
            if choice["index"]:
                continue
            delta = choice["delta"]
            text += delta.get("content") or ""
            refusal += delta.get("refusal") or ""
            for piece in delta.get("tool_calls") or ():
                call = calls.setdefault(piece["index"], ["", ""])
                call[0] += piece["function"].get("name") or ""
                call[1] += piece["function"].get("arguments") or ""
    return text, refusal, [name for name, _ in calls.values()], [told for _, told in calls.values()]


def _anthropic(values: list[Json]) -> tuple[str, str, list[str], list[str]]:
    text = refusal = ""
    calls: dict[int, list[str]] = {}
    for value in values:
        block, delta = value.get("content_block") or {}, value.get("delta") or {}
        if block.get("type") == "tool_use":
            calls[value["index"]] = [block["name"], ""]
        text += block.get("text") or "" if block.get("type") == "text" else ""
        text += delta.get("text") or ""
        refusal += (delta.get("stop_details") or {}).get("explanation") or ""
        if value.get("index") in calls:
            calls[value["index"]][1] += delta.get("partial_json") or ""
    return text, refusal, [name for name, _ in calls.values()], [told for _, told in calls.values()]
