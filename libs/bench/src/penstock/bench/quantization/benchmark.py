"""The quantised model against the original: size, speed, accuracy, cosine, batch invariance.

Everything is measured on the one model that is shipped; `weights_memory_ratio` counts the bytes of
its weights and nothing that a runtime keeps beside them. Speed: one thread on every side, sides in
turns, the same texts; batches of 32 sorted by length for the sides that pad, rows singly for the
shipped model, as it is served. Accuracy: logistic regression on embeddings, a head trained for each
side, on Banking77's own split, and, as `*_clinc150`, on a sample of CLINC150's.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from penstock.bench.harness.data_sets import (
    BANKING77,
    CLINC150,
    LabelledText,
    banking77,
    clinc150,
)
from penstock.bench.harness.intervals import bootstrap
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.report import Bound, Result, Table
from penstock.models.evaluate import batch_invariance, cosines
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.encoder import TextModel

NEEDS_MODELS = True
SEED = 20260301
MODEL, ORIGINAL = "all-MiniLM-L6-v2", "all-MiniLM-L6-v2-fp32"
BATCH = 32
BATCH_SIZES = (1, BATCH)
INVARIANCE_TEXTS = 320
CLINC_TRAIN, CLINC_TEST = 20, 10
"""Texts of each of its 150 intents."""
SUBJECTS = 8
"""Subjects of the repository's samples, which vary fastest."""
INT8, FP32, TORCH = "ONNX INT8, as shipped", "ONNX FP32", "torch FP32, eager"
"""Names of the sides."""
BOUNDS = {
    "size_ratio": Bound(">=", 3.8),
    "weights_memory_ratio": Bound(">=", 3.6),
    "speedup_vs_torch": Bound(">=", 2.2),
    "speedup_vs_onnx_fp32": Bound(">=", 1.7),
    "accuracy_kept": Bound(">=", 0.995),
    "cosine_mean": Bound(">=", 0.985),
    "batch_invariance_cosine_min": Bound(">=", 0.999),
}
EXACT = frozenset({"size_ratio", "weights_memory_ratio", "batch_invariance_cosine_min"})
"""Bytes, and the same arithmetic on the same texts."""
Embed = Callable[[Sequence[str]], object]


@dataclass(frozen=True)
class Labelled:
    """Texts and their labels."""

    texts: list[str]
    labels: list[str]


def run(options: Options) -> Result:
    """Measure."""
    folder = home_folder() / "models"
    int8 = TextModel.load(folder / MODEL / "1")
    fp32 = TextModel.load(folder / ORIGINAL / "1")
    train, test = _texts(options)
    times, table = _speed(fp32, int8, test.texts, options)
    quality = _quality(fp32, int8, train, test)
    sample = random.Random(SEED).sample(test.texts, min(INVARIANCE_TEXTS, len(test.texts)))
    clinc = _clinc150(fp32, int8, options)
    figures = {
        **_sizes(folder),
        **_speedups(times),
        **_quality_figures(quality),
        **_clinc150_figures(clinc),
        "batch_invariance_cosine_min": batch_invariance(int8, sample),
    }
    intervals = bootstrap(times, _speedups, "rounds")
    intervals |= bootstrap(quality, _quality_figures, "test texts", 1_000)
    intervals |= bootstrap(clinc, _clinc150_figures, "test texts", 1_000)
    not_run = "`speedup_vs_torch`: torch is not installed here."
    context = {
        "data": {name: options.source(name) for name in (BANKING77, CLINC150)},
        "train": len(train.texts),
        "test": len(test.texts),
        "seed": SEED,
        "threads": 1,
    }
    has_torch = "speedup_vs_torch" in figures
    return Result(
        figures,
        {name: bound for name, bound in BOUNDS.items() if name in figures},
        context,
        (table,),
        not_run="" if has_torch else not_run,
        intervals=intervals,
        exact=EXACT,
    )


def _sizes(folder: Path) -> dict[str, float]:
    original, quantised = (folder / name / "1" / "model.onnx" for name in (ORIGINAL, MODEL))
    return {
        "size_ratio": original.stat().st_size / quantised.stat().st_size,
        "weights_memory_ratio": _weight_bytes(original) / _weight_bytes(quantised),
    }


def _weight_bytes(path: Path) -> int:
    """Bytes of all weights in the graph's own types."""
    graph = onnx.load(str(path)).graph
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)


class Judged(NamedTuple):
    """One test text: whether each side's head is right, and the cosine of the embeddings."""

    fp32_right: bool
    int8_right: bool
    cosine: float


def _quality_figures(texts: Sequence[Judged]) -> dict[str, float]:
    rights = np.array([(text.fp32_right, text.int8_right) for text in texts], dtype=float)
    fp32, int8 = rights.mean(axis=0).tolist()
    return {
        "accuracy_fp32": fp32,
        "accuracy_kept": int8 / fp32,
        "cosine_mean": statistics.fmean(text.cosine for text in texts),
    }


def _clinc150(fp32: TextModel, int8: TextModel, options: Options) -> list[Judged]:
    """The same on so many texts of each intent of CLINC150; none where it is not there."""
    train, test = clinc150(options, "train"), clinc150(options, "test")
    if train is None or test is None:
        return []
    sizes = (4, 2) if options.quick else (CLINC_TRAIN, CLINC_TEST)
    sampled = [_of_each(rows, size) for rows, size in zip((train, test), sizes, strict=True)]
    return _quality(fp32, int8, *sampled)


def _of_each(rows: Sequence[LabelledText], size: int) -> Labelled:
    """So many texts of each label, drawn at random."""
    by_label: dict[str, list[LabelledText]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    rng = random.Random(SEED)
    return _labelled([row for alike in by_label.values() for row in rng.sample(alike, size)])


def _clinc150_figures(texts: Sequence[Judged]) -> dict[str, float]:
    """Their figures, under names of their own; none without texts."""
    found = _quality_figures(texts) if texts else {}
    return {f"{name}_clinc150": value for name, value in found.items()}


def _quality(fp32: TextModel, int8: TextModel, train: Labelled, test: Labelled) -> list[Judged]:
    """A head on each side's own embeddings, and the cosine of the test embeddings."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    rights = []
    embeddings = []
    for model in (fp32, int8):
        head = LogisticRegression(max_iter=1000, C=10.0)
        head.fit(model.embed(train.texts), train.labels)
        embeddings.append(model.embed(test.texts))
        rights.append(head.predict(embeddings[-1]) == np.array(test.labels))
    rows = zip(*rights, cosines(*embeddings), strict=True)
    return [Judged(bool(one), bool(other), float(cosine)) for one, other, cosine in rows]


Times = dict[tuple[str, int], float]
"""Milliseconds a text of one round, by side and batch size."""


def _speed(
    fp32: TextModel, int8: TextModel, texts: Sequence[str], options: Options
) -> tuple[list[Times], Table]:
    padding_fp32 = replace(fp32, card=fp32.card.model_copy(update={"rows_singly": False}))
    sides: dict[str, Embed] = {FP32: padding_fp32.embed, INT8: int8.embed}
    torch_embed = _torch_embed(padding_fp32)
    if torch_embed is not None:
        sides[TORCH] = torch_embed
    times = _times(sides, texts, options)
    rows: tuple[tuple[str | float, ...], ...] = tuple(
        (name, *(statistics.median(round_[name, size] for round_ in times) for size in BATCH_SIZES))
        for name in sides
    )
    title = "Milliseconds a text, one thread (median of the rounds)"
    return times, Table(title, ("side", "batch 1", f"batch {BATCH}"), rows)


def _speedups(times: Sequence[Times]) -> dict[str, float]:
    """The speed-ups over each side that was measured."""
    names = {FP32: "speedup_vs_onnx_fp32", TORCH: "speedup_vs_torch"}
    measured = {side for side, _ in times[0]}
    return {name: _speedup(times, side) for side, name in names.items() if side in measured}


def _times(sides: Mapping[str, Embed], texts: Sequence[str], options: Options) -> list[Times]:
    rng = random.Random(SEED)
    rounds, count = (2, 32) if options.quick else (10, 192)
    times: list[Times] = []
    for embed in sides.values():
        embed(SAMPLE_TEXTS[:BATCH])
    for _ in range(rounds):
        chosen = sorted(rng.sample(texts, min(count, len(texts))), key=len)
        times.append(
            {
                (name, size): _ms_per_text(embed, chosen, size)
                for size in BATCH_SIZES
                for name, embed in sides.items()
            }
        )
    return times


def _ms_per_text(embed: Embed, texts: Sequence[str], size: int) -> float:
    began_s = time.perf_counter()
    for start in range(0, len(texts), size):
        embed(texts[start : start + size])
    return (time.perf_counter() - began_s) * 1e3 / len(texts)


def _speedup(times: Sequence[Times], other: str) -> float:
    """The other side's time over ours: geometric mean over batch sizes of the median of rounds."""
    medians = [
        statistics.median(round_[other, size] / round_[INT8, size] for round_ in times)
        for size in BATCH_SIZES
    ]
    return math.prod(medians) ** (1 / len(medians))


def _torch_embed(model: TextModel) -> Embed | None:
    """The original weights in eager torch on one thread; None without torch or the weights."""
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

    def embed(texts: Sequence[str]) -> object:
        rows = model.encode(texts)
        longest = max(len(ids) for ids, _ in rows)
        input_ids, mask, token_types = np.zeros((3, len(rows), longest), dtype=np.int64)
        for index, (ids, types) in enumerate(rows):
            input_ids[index, : len(ids)] = ids
            mask[index, : len(ids)] = 1
            token_types[index, : len(ids)] = types
        with torch.inference_mode():
            tensors = (torch.from_numpy(array) for array in (input_ids, mask, token_types))
            return encoder(*tensors).numpy()

    return embed


def _texts(options: Options) -> tuple[Labelled, Labelled]:
    """Texts to train and to test with: Banking77's own split, or samples of eight subjects."""
    train, test = banking77(options, "train"), banking77(options, "test")
    if train is None or test is None:
        return _sample_texts()
    if options.quick:
        rng = random.Random(SEED)
        return _labelled(rng.sample(train, 600)), _labelled(rng.sample(test, 200))
    return _labelled(train), _labelled(test)


def _sample_texts() -> tuple[Labelled, Labelled]:
    """The repository's samples with their subjects as labels; every fourth frame is tested."""
    rows = [(text, str(index % SUBJECTS)) for index, text in enumerate(SAMPLE_TEXTS)]
    is_test = [index // SUBJECTS % 4 == 0 for index in range(len(rows))]
    train = [row for row, tested in zip(rows, is_test, strict=True) if not tested]
    test = [row for row, tested in zip(rows, is_test, strict=True) if tested]
    return _labelled(train), _labelled(test)


def _labelled(rows: Sequence[tuple[str, str]]) -> Labelled:
    return Labelled([text for text, _ in rows], [label for _, label in rows])
