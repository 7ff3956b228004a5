"""A model folder from what a user brings: a Hugging Face directory (through torch) or an ONNX file.

Nothing half made is ever seen.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from penstock.models.export import OPSET, export, fuse, load_classifier, load_encoder, require_torch
from penstock.models.machine import machine
from penstock.models.publish import publish_new
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import BadModel, ModelCard, checksum, write_card
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import OnnxSession

Task = Literal["embed", "classify", "pair", "infer"]
SERVED_TASKS: dict[str, tuple[str, ...]] = {
    "embed": ("embed", "classify", "infer"),
    "classify": ("classify", "infer"),
    "pair": ("infer",),
    "infer": ("infer",),
}
"""What a folder of each task serves: an encoder classifies by example; a pair scorer takes the two
texts' tokens as tensors.
"""
LONGEST = 1 << 15
MAX_DIFFERENCE = 1e-3
Step = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """What the user says of a model; what is empty is read from its files."""

    task: Task
    pooling: str = ""
    max_tokens: int = 0
    licence: str = ""
    tokenizer: Path | None = None
    labels: tuple[str, ...] = ()


def from_hugging_face(source: Path, target: Path, wanted: ExportOptions, step: Step) -> ModelCard:
    """Write to `target` the fused FP32 ONNX form of the model in `source`, compared with the
    original in torch.

    Raises:
        BadModel: a file is missing, torch is not installed, or the exported graph computes
            something else; nothing is written.
    """
    config = _json(source / "config.json")
    if not (source / "tokenizer.json").is_file():
        raise BadModel(
            f"{source / 'tokenizer.json'}: is missing; save the fast tokenizer of this model there"
        )
    require_torch()
    with tempfile.TemporaryDirectory(prefix="penstock-export-") as scratch:
        plain, made = Path(scratch) / "plain.onnx", Path(scratch) / "made"
        made.mkdir()
        step("loading the original")
        module = _module(source, wanted)
        step("exporting to ONNX")
        export(module, plain, "sentence_embedding" if wanted.task == "embed" else "logits")
        step("fusing attention")
        fused = fuse(plain, made / "model.onnx", source)
        shutil.copy(source / "tokenizer.json", made / "tokenizer.json")
        read = replace(
            wanted,
            max_tokens=wanted.max_tokens or _longest(source, config),
            labels=_labels(config, wanted),
        )
        card = _card(made, target, read, (f"Hugging Face directory {source.resolve().name}",))
        write_card(made, card)
        step("comparing with the original")
        worst = _difference(module, TextModel.load(made))
        if worst > MAX_DIFFERENCE:
            raise BadModel(
                f"the exported graph differs from the original by {worst:.2g}; not published"
            )
        figures = {
            "export_difference_max": worst,
            "attention_layers_fused": float(fused.get("Attention", 0)),
        }
        card = card.model_copy(update={"figures": figures})
        write_card(made, card)
        publish_new(made, target)
    return card


def from_onnx(source: Path, target: Path, wanted: ExportOptions) -> ModelCard:
    """Write to `target` a folder around the user's own ONNX file, checked and loaded once.

    Raises:
        BadModel: the file is not a valid model, this runtime lacks one of its operators, or its
            tokenizer is needed and not there.
    """
    beside = source.parent / "tokenizer.json"
    tokenizer = wanted.tokenizer or (beside if beside.is_file() else None)
    if tokenizer is None and wanted.task != "infer":
        raise BadModel(
            f"{wanted.task} takes texts, so it needs a tokenizer; name one with --tokenizer"
        )
    with tempfile.TemporaryDirectory(prefix="penstock-export-") as scratch:
        made = Path(scratch)
        opset = _checked(source, made / "model.onnx")
        session = OnnxSession(made / "model.onnx")
        if tokenizer is not None:
            _copy(tokenizer, made / "tokenizer.json")
        read = replace(wanted, max_tokens=wanted.max_tokens or 512)
        card = _card(made, target, read, (f"ONNX file {source.name}",)).model_copy(
            update={"opset": opset}
        )
        write_card(made, card)
        if wanted.task in ("embed", "classify"):
            _try(TextModel.load(made), wanted)
        elif not session.outputs:
            raise BadModel(f"{source.name}: has no output")
        publish_new(made, target)
    return card


def _module(source: Path, wanted: ExportOptions) -> Any:
    try:
        if wanted.task == "embed":
            return load_encoder(source, wanted.pooling or _pooling(source))
        return load_classifier(source)
    except (OSError, ValueError, KeyError) as error:
        raise BadModel(f"{source}: transformers cannot load it ({type(error).__name__})") from error


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copy(source, target)
    except OSError as error:
        raise BadModel(f"{source}: cannot be read ({error.strerror})") from None


def _checked(source: Path, target: Path) -> int:
    """Copy as one file, each node with a name to be excluded by; returns the opset of the standard
    operators.
    """
    try:
        model = onnx.load(str(source))
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{number}"
        onnx.save(model, str(target))
        onnx.checker.check_model(str(target))
    except Exception as error:
        raise BadModel(f"{source}: is not a valid ONNX model ({type(error).__name__})") from error
    return max(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        default=0,
    )


def _try(model: TextModel, wanted: ExportOptions) -> None:
    unknown = [spec.name for spec in model.session.inputs if spec.name not in GIVEN]
    if unknown:
        raise BadModel(
            f"input {unknown[0]!r} is not one of {', '.join(GIVEN)}, which a text model "
            "takes; use --task infer"
        )
    answer = model.embed(SAMPLE_TEXTS[:2])
    if answer.ndim != 2:
        raise BadModel(
            f"the first output has {answer.ndim} dimensions a batch; {wanted.task} needs "
            "(rows, width)"
        )
    if wanted.task == "classify" and len(wanted.labels) != answer.shape[1]:
        raise BadModel(
            f"the model has {answer.shape[1]} classes and {len(wanted.labels)} labels; name "
            "them with --labels"
        )


GIVEN = ("input_ids", "attention_mask", "token_type_ids")


def _difference(module: Any, model: TextModel) -> float:
    """Largest difference between the original's and the graph's answers, over samples of many
    lengths.
    """
    import torch

    worst = 0.0
    for ids, types in model.encode(SAMPLE_TEXTS[::7]):
        rows = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
        with torch.inference_mode():
            expected = module(*(torch.tensor([rows[name]]) for name in module.takes)).numpy()
        worst = max(worst, float(np.abs(expected - model.run([(ids, types)])).max()))
    return worst


def _card(folder: Path, target: Path, wanted: ExportOptions, sources: Sequence[str]) -> ModelCard:
    session = OnnxSession(folder / "model.onnx")
    files = {
        path.name: checksum(path)
        for path in sorted(folder.glob("*"))
        if path.suffix in (".onnx", ".json")
    }
    width = session.outputs[0].shape[-1] if session.outputs and session.outputs[0].shape else None
    place = target.resolve()
    return ModelCard(
        name=place.parent.name,
        version=place.name,
        tasks=SERVED_TASKS[wanted.task],
        model="model.onnx",
        tokenizer="tokenizer.json" if "tokenizer.json" in files else "",
        max_input_tokens=wanted.max_tokens if "tokenizer.json" in files else 0,
        dimension=(width or 0) if wanted.task == "embed" else 0,
        labels=wanted.labels,
        rows_singly=not any(
            spec.name == "attention_mask" for spec in session.inputs
        ),  # without it padding would be read
        opset=OPSET,
        quantisation="none",
        sources=tuple(sources),
        licence=wanted.licence,
        files=files,
        machine=machine(),
    )


def _labels(config: dict[str, Any], wanted: ExportOptions) -> tuple[str, ...]:
    if wanted.task != "classify":
        return ()
    named = config.get("id2label") or {}
    return wanted.labels or tuple(str(named[key]) for key in sorted(named, key=int))


def _longest(source: Path, config: dict[str, Any]) -> int:
    """The smallest of the limits that the directory's files name."""
    sentence, tokens = source / "sentence_bert_config.json", source / "tokenizer_config.json"
    limits = [
        config.get("max_position_embeddings"),
        _json(sentence).get("max_seq_length") if sentence.exists() else None,
    ]
    limits.append(_json(tokens).get("model_max_length") if tokens.exists() else None)
    return min((int(limit) for limit in limits if limit and limit <= LONGEST), default=512)


def _pooling(source: Path) -> str:
    """What sentence-transformers' own file says; mean where there is none."""
    path = source / "1_Pooling" / "config.json"
    return "cls" if path.exists() and _json(path).get("pooling_mode_cls_token") else "mean"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadModel(f"{path}: cannot be read ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise BadModel(f"{path}: is not a JSON object")
    return found
