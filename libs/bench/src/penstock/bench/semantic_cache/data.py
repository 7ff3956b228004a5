"""What the semantic cache is measured on: public prompts with their answers, embedded by the
default model.
"""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.bench.harness.options import Options
from penstock.cache.semantic.classes import Floats
from penstock.onnx.encoder import TextModel


@dataclass
class Corpus:
    """Texts, their answers and their unit vectors."""

    texts: list[str]
    answers: list[str]
    vectors: Floats


def embedder() -> Path:
    """The newest revision of the default model in `PENSTOCK_HOME`."""
    folder = Path(os.environ.get("PENSTOCK_HOME", ".penstock")) / "models" / "all-MiniLM-L6-v2"
    return max(folder.glob("*"), key=lambda path: (len(path.name), path.name))


def embed(model: TextModel, texts: Sequence[str]) -> Floats:
    """Unit vectors of texts."""
    vectors = model.embed(texts)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _corpus(rows: Sequence[tuple[str, str]], model: TextModel, quick: bool) -> Corpus:
    kept = rows[:1_500] if quick else rows
    return Corpus(
        [text for text, _ in kept],
        [answer for _, answer in kept],
        embed(model, [text for text, _ in kept]),
    )


def banking(options: Options, model: TextModel) -> Corpus:
    """Banking77, in a fixed order."""
    if options.data is None or options.source("banking77") == "generated":
        return _corpus(_generated(), model, options.quick)
    rows = []
    for name in ("train.csv", "test.csv"):
        with (options.data / "banking77" / name).open(newline="") as file:
            rows += [(row["text"], row["category"]) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rows)
    return _corpus(rows, model, options.quick)


def clinc(options: Options, model: TextModel, most: int | None = None) -> Corpus:
    """CLINC150, of whose out-of-scope queries each has an answer of its own; the first so many."""
    if options.data is None or options.source("clinc150") == "generated":
        return _corpus(_generated(), model, options.quick)
    data = json.loads((options.data / "clinc150" / "data_full.json").read_text())
    rows = [
        (text, intent if intent != "oos" else f"out of scope {part} {number}")
        for part, items in data.items()
        for number, (text, intent) in enumerate(items)
    ]
    random.Random(0).shuffle(rows)
    return _corpus(rows[:most], model, options.quick)


def _generated() -> list[tuple[str, str]]:
    """Requests of ten intents in ten ways."""
    things = (
        "card",
        "account",
        "loan",
        "password",
        "address",
        "statement",
        "limit",
        "fee",
        "branch",
        "refund",
    )
    ways = (
        "where is my {}",
        "I need help with my {}",
        "change my {}",
        "what about the {}",
        "my {} is wrong",
        "tell me more about the {}",
    )
    tails = ("", " please", " today", " now", ", thanks")
    return [
        (way.format(thing) + tail, thing) for thing in things for way in ways for tail in tails
    ] * 3
