"""Quantised against original: size, weights, speed, accuracy of a classifier, cosine, and
independence of neighbours.

Everything is measured on the one model that is shipped. Speed: one thread on every side, sides
interleaved, the same texts; batches of 32 sorted by length for the sides that pad, rows singly for
the shipped model, which is how it is served. Accuracy: logistic regression on embeddings, one head
trained for each side, on Banking77's own split.
"""

from __future__ import annotations

import csv
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.models.evaluate import batch_invariance, cosines
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.encoder import Floats, TextModel

SEED = 20260301
MODEL, ORIGINAL = "all-MiniLM-L6-v2", "all-MiniLM-L6-v2-fp32"
BATCH = 32
Labelled = tuple[list[str], list[str]]
Encode = Callable[[Sequence[str]], object]


def run(options: Options) -> Result:
    home = Path(os.environ.get("PENSTOCK_HOME", ".penstock")) / "models"
    int8, fp32 = TextModel.load(home / MODEL / "1"), TextModel.load(home / ORIGINAL / "1")
    padded = replace(fp32, card=fp32.card.model_copy(update={"rows_singly": False}))
    train, test = _texts(options)
    sizes = [(home / name / "1" / "model.onnx").stat().st_size for name in (ORIGINAL, MODEL)]
    weights = [_weight_bytes(home / name / "1" / "model.onnx") for name in (ORIGINAL, MODEL)]
    accuracy, cosine = _quality(fp32, int8, train, test)
    speed, rows = _speed(padded, int8, test[0], options)
    sample = random.Random(SEED).sample(test[0], min(320, len(test[0])))
    figures = {
        "size_ratio": sizes[0] / sizes[1],
        "weights_memory_ratio": weights[0] / weights[1],
        **speed,
        "accuracy_fp32": accuracy[0],
        "accuracy_kept": accuracy[1] / accuracy[0],
        "cosine_mean": cosine,
        "batch_invariance_cosine_min": batch_invariance(int8, sample),
    }
    bounds = {
        "size_ratio": Bound(">=", 3.8),
        "weights_memory_ratio": Bound(">=", 3.6),
        "speedup_vs_torch": Bound(">=", 2.2),
        "speedup_vs_onnx_fp32": Bound(">=", 1.7),
        "accuracy_kept": Bound(">=", 0.995),
        "cosine_mean": Bound(">=", 0.985),
        "batch_invariance_cosine_min": Bound(">=", 0.999),
    }
    notes = (
        ()
        if "speedup_vs_torch" in speed
        else ("torch is not installed here, so `speedup_vs_torch` is absent",)
    )
    context = {
        "data": options.source("banking77"),
        "train": len(train[0]),
        "test": len(test[0]),
        "seed": SEED,
        "threads": 1,
    }
    table = Table(
        "Milliseconds a text, one thread (median of the rounds)",
        ("side", "batch 1", "batch 32"),
        rows,
    )
    return Result(figures, bounds, context, (table,), notes=notes)


def _weight_bytes(path: Path) -> int:
    """Bytes of all weights as the graph holds them."""
    graph = onnx.load(str(path)).graph
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)


def _quality(
    fp32: TextModel, int8: TextModel, train: Labelled, test: Labelled
) -> tuple[tuple[float, float], float]:
    """Test accuracy of a head on each side's own embeddings, and the mean cosine of the test
    embeddings.
    """
    from sklearn.linear_model import LogisticRegression

    scores = []
    vectors: list[Floats] = []
    for model in (fp32, int8):
        head = LogisticRegression(max_iter=1000, C=10.0).fit(model.embed(train[0]), train[1])
        vectors.append(model.embed(test[0]))
        scores.append(float(head.score(vectors[-1], test[1])))
    return (scores[0], scores[1]), float(cosines(vectors[0], vectors[1]).mean())


def _speed(
    fp32: TextModel, int8: TextModel, texts: list[str], options: Options
) -> tuple[dict[str, float], tuple[tuple[str | float, ...], ...]]:
    rng = random.Random(SEED)
    rounds, count = (2, 32) if options.quick else (7, 192)
    sides: dict[str, Encode] = {"ONNX FP32": fp32.embed, "ONNX INT8, as shipped": int8.embed}
    torch_side = _torch_side(fp32)
    if torch_side is not None:
        sides["torch FP32, eager"] = torch_side
    times: dict[tuple[str, int], list[float]] = {
        (name, size): [] for name in sides for size in (1, BATCH)
    }
    for side in sides.values():
        side(SAMPLE_TEXTS[:BATCH])
    for _ in range(rounds):
        chosen = sorted(rng.sample(texts, min(count, len(texts))), key=len)
        for size in (1, BATCH):
            for name, side in sides.items():
                times[name, size].append(_ms_a_text(side, chosen, size))
    figures = {"speedup_vs_onnx_fp32": _ratio(times, "ONNX FP32")}
    if torch_side is not None:
        figures["speedup_vs_torch"] = _ratio(times, "torch FP32, eager")
    rows: list[tuple[str | float, ...]] = [
        (name, *(statistics.median(times[name, size]) for size in (1, BATCH))) for name in sides
    ]
    return figures, tuple(rows)


def _ms_a_text(side: Encode, texts: list[str], size: int) -> float:
    began = time.perf_counter()
    for start in range(0, len(texts), size):
        side(texts[start : start + size])
    return (time.perf_counter() - began) * 1e3 / len(texts)


def _ratio(times: dict[tuple[str, int], list[float]], other: str) -> float:
    """Geometric mean over batch sizes of the median over rounds of (other ÷ ours)."""
    medians = [
        statistics.median(
            a / b
            for a, b in zip(times[other, size], times["ONNX INT8, as shipped", size], strict=True)
        )
        for size in (1, BATCH)
    ]
    return math.sqrt(medians[0] * medians[1])


def _torch_side(model: TextModel) -> Encode | None:
    """The original weights in eager torch, with the same tokenizer and one thread; None without
    torch or the weights.
    """
    try:
        import torch
        from penstock.models.default import weights_folder
        from penstock.models.export import load_encoder
        from penstock.onnx.card import BadModel
    except ImportError:
        return None
    try:
        encoder: Any = load_encoder(weights_folder())
    except BadModel:
        return None
    torch.set_num_threads(1)

    def encode(texts: Sequence[str]) -> object:
        rows = model.encode(texts)
        longest = max(len(ids) for ids, _ in rows)
        arrays = np.zeros((3, len(rows), longest), dtype=np.int64)
        for index, (ids, types) in enumerate(rows):
            (
                arrays[0, index, : len(ids)],
                arrays[1, index, : len(ids)],
                arrays[2, index, : len(ids)],
            ) = ids, 1, types
        with torch.inference_mode():
            return encoder(*(torch.from_numpy(array) for array in arrays)).numpy()

    return encode


def _texts(options: Options) -> tuple[Labelled, Labelled]:
    """Train and test texts with labels: Banking77's own split, or texts of eight subjects made
    here.
    """
    if options.data is None or options.source("banking77") == "generated":
        labelled = [(text, index % 8) for index, text in enumerate(SAMPLE_TEXTS)]
        return _split([item for index, item in enumerate(labelled) if index % 4]), _split(
            labelled[::4]
        )
    train, test = (_read(options.data / "banking77" / f"{part}.csv") for part in ("train", "test"))
    if options.quick:
        rng = random.Random(SEED)
        return _split(rng.sample(train, 600)), _split(rng.sample(test, 200))
    return _split(train), _split(test)


def _read(path: Path) -> list[tuple[str, object]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def _split(rows: Sequence[tuple[str, object]]) -> Labelled:
    return [text for text, _ in rows], [str(label) for _, label in rows]
