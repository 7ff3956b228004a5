"""Public prompts with their answers, embedded by the default model."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.bench.harness.data_sets import CLINC150, banking77
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.cache.semantic.classes import Floats
from penstock.onnx.encoder import TextModel
from penstock.stack.plan import DEFAULT_MODEL

QUICK_ROWS = 1_000


@dataclass
class Corpus:
    """Texts, their answers and their unit vectors."""

    texts: list[str]
    answers: list[str]
    vectors: Floats


def embedder_folder() -> Path:
    """The newest revision of the default model in `PENSTOCK_HOME`."""
    revisions = (home_folder() / "models" / DEFAULT_MODEL).glob("*")
    return max(revisions, key=lambda path: (len(path.name), path.name))


def embed(model: TextModel, texts: Sequence[str]) -> Floats:
    """Unit vectors of texts."""
    vectors = model.embed(texts)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def banking_corpus(options: Options, model: TextModel) -> Corpus:
    """Banking77 in a fixed order; an intent is an answer."""
    train, test = banking77(options, "train"), banking77(options, "test")
    if train is None or test is None:
        return _corpus(_generated_rows(), model, options)
    rows = [(row.text, row.label) for row in (*train, *test)]
    random.Random(0).shuffle(rows)
    return _corpus(rows, model, options)


def clinc_corpus(options: Options, model: TextModel, max_rows: int | None = None) -> Corpus:
    """CLINC150 (Larson et al., 2019) in a fixed order.

    Each of its out-of-scope queries has an answer of its own.
    """
    folder = options.folder(CLINC150)
    if folder is None:
        return _corpus(_generated_rows(), model, options)
    data = json.loads((folder / "data_full.json").read_text())
    rows = [
        (text, intent if intent != "oos" else f"out of scope {part} {number}")
        for part, items in data.items()
        for number, (text, intent) in enumerate(items)
    ]
    random.Random(0).shuffle(rows)
    return _corpus(rows[:max_rows], model, options)


def _corpus(rows: Sequence[tuple[str, str]], model: TextModel, options: Options) -> Corpus:
    rows = rows[:QUICK_ROWS] if options.quick else rows
    texts = [text for text, _ in rows]
    return Corpus(texts, [answer for _, answer in rows], embed(model, texts))


def _generated_rows() -> list[tuple[str, str]]:
    """Requests of ten intents, each in thirty forms, three times."""
    intents = (
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
    forms = (
        "where is my {}",
        "I need help with my {}",
        "change my {}",
        "what about the {}",
        "my {} is wrong",
        "tell me more about the {}",
    )
    suffixes = ("", " please", " today", " now", ", thanks")
    rows = [
        (form.format(intent) + suffix, intent)
        for intent in intents
        for form in forms
        for suffix in suffixes
    ]
    return rows * 3
