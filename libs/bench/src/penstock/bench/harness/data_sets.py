"""Public data sets that several benchmarks read."""

from __future__ import annotations

import csv
import json
from typing import Literal, NamedTuple

from penstock.bench.harness.options import Options
from penstock.simulation.azure_trace import FOLDER, TraceName, TraceRow, read_azure_trace

BANKING77, CLINC150 = "banking77", "clinc150"


class LabelledText(NamedTuple):
    """A customer's request and its intent."""

    text: str
    label: str


def banking77(options: Options, split: Literal["train", "test"]) -> list[LabelledText] | None:
    """The rows of Banking77 (Casanueva et al., 2020), or None where it is not there."""
    folder = options.folder(BANKING77)
    if folder is None:
        return None
    with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as lines:
        return [LabelledText(row["text"], row["category"]) for row in csv.DictReader(lines)]


def clinc150(options: Options, split: Literal["train", "test"]) -> list[LabelledText] | None:
    """The rows of CLINC150 (Larson et al., 2019) within its intents, or None where it is not
    there.
    """
    folder = options.folder(CLINC150)
    if folder is None:
        return None
    rows = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))[split]
    return [LabelledText(text, label) for text, label in rows]


def azure_trace(options: Options, name: TraceName = "conv") -> list[TraceRow] | None:
    """The rows of an Azure trace, or None where it is not there."""
    if options.data is None or options.folder(FOLDER) is None:
        return None
    return read_azure_trace(options.data, name)
