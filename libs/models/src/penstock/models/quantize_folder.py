"""Quantises a model folder and publishes it only where it keeps the quality floors.

Where a floor is missed, the layers that lose most by quantisation stay in floating point, one after
another, until the floors are met or too many layers would stay.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from penstock.models.evaluate import cosines
from penstock.models.publish import publish_new
from penstock.models.quality_floors import QualityFloors
from penstock.models.quantize import (
    Recipe,
    machine,
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
MODEL_FILE = "model.onnx"
ShowStep = Callable[[str], None]


def quantize_folder(
    source: Path, target: Path, recipe: Recipe, floors: QualityFloors, show_step: ShowStep
) -> ModelCard:
    """Write to `target` the quantised form of the floating-point text model in `source`.

    Static ranges are calibrated on the texts of `floors`.

    Raises:
        BadModel: the model takes no texts, the quantiser cannot take it, or the floors cannot be
            met; nothing is written.
    """
    original = TextModel.load(source)
    if original.tokenizer is None:
        raise BadModel(
            f"{source}: takes tensors only; without texts to compare by it cannot be judged"
        )
    with tempfile.TemporaryDirectory(prefix="penstock-quantise-") as scratch:
        quantiser = _Quantiser(original, source, Path(scratch), recipe, floors.texts, show_step)
        folder, float_layers, figures = _search(quantiser, floors)
        original_bytes = (source / original.card.model).stat().st_size
        quantised_bytes = (folder / MODEL_FILE).stat().st_size
        figures["size_ratio"] = original_bytes / quantised_bytes
        figures["layers_in_floating_point"] = float(len(float_layers))
        place = target.resolve()
        update = {"name": place.parent.name, "version": place.name, "figures": figures}
        card = quantiser.card(folder, float_layers).model_copy(update=update)
        write_card(folder, card)
        publish_new(folder, target)
    return card


def _search(
    quantiser: _Quantiser, floors: QualityFloors
) -> tuple[Path, list[str], dict[str, float]]:
    """The first folder that meets the floors, its layers in floating point, and its figures."""
    float_layers: list[str] = []
    ranked: list[str] | None = None
    while True:
        quantiser.show_step(f"quantising, {len(float_layers)} layers in floating point")
        folder = quantiser.quantise(f"try-{len(float_layers)}", float_layers)
        figures = floors.measure(quantiser.original, TextModel.load(folder))
        missed = floors.missed(figures)
        if not missed:
            return folder, float_layers, figures
        if ranked is None:
            ranked = quantiser.layers_by_gain()
        if len(float_layers) == min(MAX_FLOAT_LAYERS, len(ranked)):
            raise BadModel(
                f"with {len(float_layers)} layers in floating point {'; '.join(missed)}; "
                "not published"
            )
        float_layers = ranked[: len(float_layers) + 1]


@dataclass(frozen=True)
class _Quantiser:
    """Quantises one model by one recipe, with some layers left in floating point."""

    original: TextModel
    source: Path
    scratch: Path
    recipe: Recipe
    texts: Sequence[str]
    show_step: ShowStep

    def quantise(self, name: str, float_layers: Sequence[str]) -> Path:
        """A new model folder below `scratch`, with these layers in floating point."""
        folder = self.scratch / name
        folder.mkdir()
        self._quantise_graph(folder / MODEL_FILE, float_layers)
        tokenizer = self.original.card.tokenizer
        shutil.copy(self.source / tokenizer, folder / tokenizer)
        write_card(folder, self.card(folder, float_layers))
        return folder

    def _quantise_graph(self, target: Path, float_layers: Sequence[str]) -> None:
        graph = self.source / self.original.card.model
        try:
            if self.recipe.kind == "static":
                batches = _calibration_batches(self.original, self.texts)
                quantize_static(graph, target, batches, self.recipe, float_layers)
            elif self.recipe.kind == "fp16":
                to_fp16(graph, target, float_layers)
            else:
                quantize_dynamic(graph, target, self.recipe, float_layers)
        except Exception as error:
            raise BadModel(
                f"{graph}: the quantiser cannot take it ({type(error).__name__}: {error})"
            ) from error

    def layers_by_gain(self) -> list[str]:
        """All layers, the one first that brings the answers nearest to the original's by staying in
        floating point.
        """
        probe = self.texts[:PROBE_TEXTS]
        original = self.original.embed(probe)
        cosine: dict[str, float] = {}
        names = matmul_nodes(self.source / self.original.card.model)
        for number, name in enumerate(names):
            self.show_step(f"trying layer {number + 1} of {len(names)} in floating point")
            folder = self.quantise(f"layer-{number}", [name])
            cosine[name] = float(cosines(original, TextModel.load(folder).embed(probe)).mean())
            shutil.rmtree(folder)
        return sorted(cosine, key=lambda name: -cosine[name])

    def card(self, folder: Path, float_layers: Sequence[str]) -> ModelCard:
        """The card of a folder made by `quantise`."""
        before = self.original.card
        description = self.recipe.describe()
        if float_layers:
            description += f"; in floating point: {', '.join(float_layers)}"
        update = {
            "model": MODEL_FILE,
            "files": {name: checksum(folder / name) for name in (MODEL_FILE, before.tokenizer)},
            "quantisation": description,
            "rows_singly": before.rows_singly or self.recipe.kind == "dynamic",
            "machine": machine(),
            "sources": (*before.sources, f"{before.name} {before.revision}"),
        }
        return before.model_copy(update=update)


def _calibration_batches(model: TextModel, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each text as a batch of one."""
    for ids, types in model.encode(texts):
        input_ids = np.array([ids], dtype=np.int64)
        arrays = {
            "input_ids": input_ids,
            "attention_mask": np.ones_like(input_ids),
            "token_type_ids": np.array([types], dtype=np.int64),
        }
        yield {spec.name: arrays[spec.name] for spec in model.session.inputs}
