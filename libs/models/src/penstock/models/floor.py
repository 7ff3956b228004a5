"""Quantise until a floor holds: the layers that hurt most stay in floating point; below the floor nothing is published."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from penstock.models.evaluate import compare, cosines
from penstock.models.quantize import cpu_features, matmul_nodes, quantize_dynamic, quantize_static, reduce_range
from penstock.onnx.card import BadModel, ModelCard, checksum, write_card
from penstock.onnx.encoder import TextModel

PROBE = 24
"""Texts by which single layers are tried."""
MOST_FLOAT = 4
Step = Callable[[str], None]


def quantize_folder(source: Path, target: Path, kind: str, texts: Sequence[str], floor: float, step: Step) -> ModelCard:
    """Write to `target` the INT8 form of a floating-point text model, `kind` "dynamic" or "static" (QDQ, calibrated on `texts`).

    Where the mean cosine to the original is below `floor`, layers that gain most by staying in floating point do, at most four.

    Raises:
        BadModel: the floor cannot be met; nothing is written.
    """
    original = TextModel.load(source)
    with tempfile.TemporaryDirectory(prefix="penstock-quantise-") as scratch:
        work = Path(scratch)
        kept: list[str] = []
        ranked: list[str] | None = None
        while True:
            step(f"quantising, {len(kept)} layers in floating point")
            made = _quantised(original, source, work / f"try-{len(kept)}", kind, texts, kept)
            figures = compare(original, TextModel.load(made), texts)
            if figures["cosine_mean"] >= floor:
                break
            if ranked is None:
                ranked = _by_harm(original, source, work, kind, texts[:PROBE], step)
            if len(kept) == min(MOST_FLOAT, len(ranked)):
                got = (
                    f"cosine to the original is {figures['cosine_mean']:.4f} with {len(kept)} layers in floating point"
                )
                raise BadModel(f"{got}, below the floor {floor}; not published")
            kept = ranked[: len(kept) + 1]
        sizes = [
            (folder / name).stat().st_size for folder, name in ((source, original.card.model), (made, "model.onnx"))
        ]
        figures |= {"size_ratio": sizes[0] / sizes[1], "layers_in_floating_point": float(len(kept))}
        card = _card(original, made, target, kind, kept).model_copy(update={"figures": figures})
        write_card(made, card)
        shutil.copytree(made, target)
    return card


def _quantised(
    original: TextModel, source: Path, target: Path, kind: str, texts: Sequence[str], kept: Sequence[str]
) -> Path:
    target.mkdir()
    graph = source / original.card.model
    if kind == "static":
        quantize_static(graph, target / "model.onnx", _batches(original, texts), keep_float=kept)
    else:
        quantize_dynamic(graph, target / "model.onnx", keep_float=kept)
    shutil.copy(source / original.card.tokenizer, target / original.card.tokenizer)
    write_card(target, _card(original, target, target, kind, kept))
    return target


def _by_harm(original: TextModel, source: Path, work: Path, kind: str, texts: Sequence[str], step: Step) -> list[str]:
    """Layers, the one first whose stay in floating point brings the answers nearest to the original's."""
    wanted = original.embed(texts)
    gain: dict[str, float] = {}
    names = matmul_nodes(source / original.card.model)
    for number, name in enumerate(names):
        step(f"trying layer {number + 1} of {len(names)} in floating point")
        folder = _quantised(original, source, work / f"layer-{number}", kind, texts, [name])
        gain[name] = float(cosines(wanted, TextModel.load(folder).embed(texts)).mean())
        shutil.rmtree(folder)
    return sorted(gain, key=lambda name: -gain[name])


def _batches(model: TextModel, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for ids, types in model.encode(texts):
        row = np.array([ids], dtype=np.int64)
        given = {
            "input_ids": row,
            "attention_mask": np.ones_like(row),
            "token_type_ids": np.array([types], dtype=np.int64),
        }
        yield {spec.name: given[spec.name] for spec in model.session.inputs}


def _card(original: TextModel, folder: Path, target: Path, kind: str, kept: Sequence[str]) -> ModelCard:
    features = cpu_features()
    how = (
        f"static INT8 QDQ, per channel, reduce_range {reduce_range(features)}"
        if kind == "static"
        else "dynamic INT8, per channel"
    )
    files = {name: checksum(folder / name) for name in ("model.onnx", original.card.tokenizer)}
    update = {
        "name": target.parent.name, "version": target.name, "model": "model.onnx", "files": files,
        "quantisation": how + (f"; in floating point: {', '.join(kept)}" if kept else ""),
        "rows_singly": kind != "static", "machine": {**original.card.machine, "features": " ".join(features)},
    }  # fmt: skip
    return original.card.model_copy(update=update)
