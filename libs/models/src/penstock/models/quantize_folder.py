"""Quantise until a floor holds: the layers that hurt most stay in floating point; below the floor
nothing is published.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from penstock.models.evaluate import compare, cosines, labelled
from penstock.models.machine import machine
from penstock.models.publish import publish_new
from penstock.models.quantize import (
    Recipe,
    matmul_nodes,
    quantize_dynamic,
    quantize_static,
    to_fp16,
)
from penstock.onnx.card import BadModel, ModelCard, checksum, write_card
from penstock.onnx.encoder import TextModel

PROBE_TEXTS = 24
"""Texts by which single layers are tried."""
MAX_FLOAT_LAYERS = 4
Step = Callable[[str], None]


@dataclass(frozen=True)
class QualityFloors:
    """By what a quantised model is judged: texts, labelled ones where there are any, and the least
    that each figure may be.
    """

    texts: Sequence[str]
    floors: Mapping[str, float]
    labelled: tuple[Sequence[str], Sequence[str]] = field(default=((), ()))

    def figures(self, original: TextModel, quantised: TextModel) -> dict[str, float]:
        """Everything that can be compared."""
        found = compare(original, quantised, self.texts)
        return found | (labelled(original, quantised, *self.labelled) if self.labelled[0] else {})

    def short(self, figures: Mapping[str, float]) -> list[str]:
        """Each figure that is below its floor, said in words."""
        return [
            f"{name} is {figures[name]:.4f}, below the floor {least}"
            for name, least in self.floors.items()
            if not figures[name] >= least
        ]


def quantize_folder(
    source: Path, target: Path, recipe: Recipe, judge: QualityFloors, step: Step
) -> ModelCard:
    """Write to `target` the INT8 form of a floating-point text model; static ranges are calibrated
    on the judge's texts.

    Where a floor is missed, the layers that gain most by staying in floating point do, at most
    four.

    Raises:
        BadModel: the floors cannot be met; nothing is written.
    """
    original = TextModel.load(source)
    if original.tokenizer is None:
        raise BadModel(
            f"{source}: takes tensors only; there are no texts to compare by, so it cannot be "
            "judged"
        )
    with tempfile.TemporaryDirectory(prefix="penstock-quantise-") as scratch:
        attempt = _Attempt(original, source, Path(scratch), recipe, judge.texts, step)
        kept: list[str] = []
        ranked: list[str] | None = None
        while True:
            step(f"quantising, {len(kept)} layers in floating point")
            made = attempt.quantised(f"try-{len(kept)}", kept)
            figures = judge.figures(original, TextModel.load(made))
            if not (short := judge.short(figures)):
                break
            if ranked is None:
                ranked = attempt.layers_by_gain()
            if len(kept) == min(MAX_FLOAT_LAYERS, len(ranked)):
                raise BadModel(
                    f"with {len(kept)} layers in floating point {'; '.join(short)}; not published"
                )
            kept = ranked[: len(kept) + 1]
        sizes = [
            (folder / name).stat().st_size
            for folder, name in ((source, original.card.model), (made, "model.onnx"))
        ]
        figures |= {"size_ratio": sizes[0] / sizes[1], "layers_in_floating_point": float(len(kept))}
        place = target.resolve()
        named = {"name": place.parent.name, "version": place.name, "figures": figures}
        card = attempt.card(made, kept).model_copy(update=named)
        write_card(made, card)
        publish_new(made, target)
    return card


@dataclass(frozen=True)
class _Attempt:
    """One model, one recipe: folders quantised with these or those layers left alone."""

    original: TextModel
    source: Path
    work: Path
    recipe: Recipe
    texts: Sequence[str]
    step: Step

    def quantised(self, name: str, kept: Sequence[str]) -> Path:
        target = self.work / name
        target.mkdir()
        graph = self.source / self.original.card.model
        try:
            if self.recipe.kind == "static":
                batches = _batches(self.original, self.texts)
                quantize_static(graph, target / "model.onnx", batches, self.recipe, kept)
            elif self.recipe.kind == "fp16":
                to_fp16(graph, target / "model.onnx", kept)
            else:
                quantize_dynamic(graph, target / "model.onnx", self.recipe, kept)
        except Exception as error:
            raise BadModel(
                f"{graph}: the quantiser cannot take it ({type(error).__name__}: {error})"
            ) from error
        shutil.copy(
            self.source / self.original.card.tokenizer, target / self.original.card.tokenizer
        )
        write_card(target, self.card(target, kept))
        return target

    def layers_by_gain(self) -> list[str]:
        """Layers, the one first whose stay in floating point brings the answers nearest to the
        original's.
        """
        probe = self.texts[:PROBE_TEXTS]
        wanted = self.original.embed(probe)
        gain: dict[str, float] = {}
        names = matmul_nodes(self.source / self.original.card.model)
        for number, name in enumerate(names):
            self.step(f"trying layer {number + 1} of {len(names)} in floating point")
            folder = self.quantised(f"layer-{number}", [name])
            gain[name] = float(cosines(wanted, TextModel.load(folder).embed(probe)).mean())
            shutil.rmtree(folder)
        return sorted(gain, key=lambda name: -gain[name])

    def card(self, folder: Path, kept: Sequence[str]) -> ModelCard:
        before = self.original.card
        files = {name: checksum(folder / name) for name in ("model.onnx", before.tokenizer)}
        update = {
            "model": "model.onnx",
            "files": files,
            "quantisation": self.recipe.describe()
            + (f"; in floating point: {', '.join(kept)}" if kept else ""),
            "rows_singly": before.rows_singly or self.recipe.kind == "dynamic",
            "machine": machine(),
            "sources": (*before.sources, f"{before.name} {before.revision}"),
        }
        return before.model_copy(update=update)


def _batches(model: TextModel, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for ids, types in model.encode(texts):
        row = np.array([ids], dtype=np.int64)
        given = {
            "input_ids": row,
            "attention_mask": np.ones_like(row),
            "token_type_ids": np.array([types], dtype=np.int64),
        }
        yield {spec.name: given[spec.name] for spec in model.session.inputs}
