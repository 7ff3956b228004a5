"""The Azure LLM inference trace of 2023: when requests came, and their input and output tokens.

Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting" (ISCA 2024).
"""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

FOLDER = "azure-llm-2023"
TIMESTAMP_LENGTH = 26
"""Characters of a timestamp up to its microseconds; the trace has one digit more."""

TraceName = Literal["conv", "code"]


class TraceRow(NamedTuple):
    """One request: seconds since the first one, input tokens, output tokens."""

    at_s: float
    input_tokens: int
    output_tokens: int


def read_azure_trace(data: Path, name: TraceName = "conv") -> list[TraceRow]:
    """The rows of a trace below the data folder, in the file's order."""
    with (data / FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    times_s = [
        datetime.fromisoformat(row["TIMESTAMP"][:TIMESTAMP_LENGTH]).timestamp() for row in rows
    ]
    return [
        TraceRow(at_s - times_s[0], int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for at_s, row in zip(times_s, rows, strict=True)
    ]
