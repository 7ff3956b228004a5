"""A model folder from what a user brings: a Hugging Face directory or an ONNX file.

A folder is made aside, checked, and put into the repository in one step.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from penstock.models.encoder_source import Original, ShowStep, make_graph
from penstock.models.export import INPUTS, OPSET
from penstock.models.publish import publish_new
from penstock.models.quantize import machine
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import BadModel, ModelCard, checksum, write_card
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import OnnxSession


@dataclass(frozen=True)
class ModelForm:
    """What a form of model is made of and good for.

    Attributes:
        tasks: the tasks that its folder serves.
        output: name of the exported graph's output.
        takes_texts: whether it needs a tokenizer.
        has_vector: whether it gives one vector for each text, which is checked.
        has_labels: whether its outputs are labels.
        has_embeddings: whether its outputs are embeddings.
    """

    tasks: tuple[str, ...]
    output: str = "logits"
    takes_texts: bool = True
    has_vector: bool = True
    has_labels: bool = False
    has_embeddings: bool = False


ADAPTERS: Mapping[str, ModelForm] = {
    "embed": ModelForm(
        ("embed", "classify", "rerank", "infer"),
        output="sentence_embedding",
        has_embeddings=True,
    ),
    "classify": ModelForm(("classify", "infer"), has_labels=True),
    "pair": ModelForm(("rerank", "infer"), has_vector=False),
    "infer": ModelForm(("infer",), takes_texts=False, has_vector=False),
}
"""The forms of models by their names on the command line. An encoder also classifies by examples
and reranks by cosines; a scorer of pairs reranks.
"""
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
MAX_INPUT_TOKENS = 1 << 15
"""A longer limit in a directory's files means that there is none."""
DEFAULT_INPUT_TOKENS = 512
MAX_DIFFERENCE = 1e-3
"""By how much an exported graph's numbers may differ from the original's."""


@dataclass(frozen=True)
class ExportOptions:
    """What the user says of a model; what is empty is read from its files."""

    task: str
    """A key of `ADAPTERS`."""
    pooling: str = ""
    max_tokens: int = 0
    licence: str = ""
    tokenizer: Path | None = None
    labels: tuple[str, ...] = ()

    @property
    def form(self) -> ModelForm:
        """The form of the model."""
        return ADAPTERS[self.task]


def from_hugging_face(
    source: Path, target: Path, options: ExportOptions, show_step: ShowStep
) -> ModelCard:
    """Write to `target` the fused FP32 ONNX form of the model in `source`, compared with the
    original.

    Raises:
        BadModel: a file is missing, torch is needed and not installed, or the exported graph
            computes something else; nothing is written.
    """
    config = _read_json(source / "config.json")
    if not (source / TOKENIZER_FILE).is_file():
        raise BadModel(
            f"{source / TOKENIZER_FILE}: is missing; save the fast tokenizer of this model there"
        )
    pooling = (options.pooling or _pooling(source)) if options.form.has_embeddings else ""
    with tempfile.TemporaryDirectory(prefix="penstock-export-") as scratch:
        folder = Path(scratch)
        made = make_graph(
            source, config, folder / MODEL_FILE, options.form.output, pooling, show_step
        )
        shutil.copy(source / TOKENIZER_FILE, folder / TOKENIZER_FILE)
        completed = replace(
            options,
            max_tokens=options.max_tokens or _max_tokens(source, config),
            labels=_labels(config, options),
        )
        card = _card(folder, target, completed, f"Hugging Face directory {source.resolve().name}")
        write_card(folder, card)
        show_step("comparing with the original")
        difference = _check_difference(made.original, TextModel.load(folder))
        figures = {
            "export_difference_max": difference,
            "attention_layers_fused": float(made.fused_layers),
        }
        card = card.model_copy(update={"figures": figures})
        write_card(folder, card)
        publish_new(folder, target)
    return card


def from_onnx(source: Path, target: Path, options: ExportOptions) -> ModelCard:
    """Write to `target` a folder around the user's own ONNX file, checked and loaded once.

    Raises:
        BadModel: the file is not a valid model, this runtime lacks one of its operators, or its
            tokenizer is needed and not there; nothing is written.
    """
    tokenizer = _tokenizer_for(source, options)
    with tempfile.TemporaryDirectory(prefix="penstock-export-") as scratch:
        folder = Path(scratch)
        opset = _copy_graph(source, folder / MODEL_FILE)
        session = OnnxSession(folder / MODEL_FILE)
        if tokenizer is not None:
            _copy(tokenizer, folder / TOKENIZER_FILE)
        completed = replace(options, max_tokens=options.max_tokens or DEFAULT_INPUT_TOKENS)
        card = _card(folder, target, completed, f"ONNX file {source.name}")
        card = card.model_copy(update={"opset": opset})
        write_card(folder, card)
        if options.form.has_vector:
            _check_text_model(TextModel.load(folder), options)
        elif not session.outputs:
            raise BadModel(f"{source.name}: has no output")
        publish_new(folder, target)
    return card


def _tokenizer_for(source: Path, options: ExportOptions) -> Path | None:
    """The tokenizer that is named, or else stands beside the ONNX file; None for tensors only."""
    beside = source.parent / TOKENIZER_FILE
    tokenizer = options.tokenizer or (beside if beside.is_file() else None)
    if tokenizer is None and options.form.takes_texts:
        raise BadModel(
            f"{options.task} takes texts, so it needs a tokenizer; name one with --tokenizer"
        )
    return tokenizer


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copy(source, target)
    except OSError as error:
        raise BadModel(f"{source}: cannot be read ({error.strerror})") from None


def _copy_graph(source: Path, target: Path) -> int:
    """Copy the ONNX model as one file; returns the opset of its standard operators.

    Each node gets a name where it has none, so that quantisation can leave it out by its name.
    """
    try:
        model = onnx.load(str(source))
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{number}"
        onnx.save(model, str(target))
        onnx.checker.check_model(str(target))
    except Exception as error:
        raise BadModel(f"{source}: is not a valid ONNX model ({type(error).__name__})") from error
    standard = [opset for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    return max((opset.version for opset in standard), default=0)


def _check_text_model(model: TextModel, options: ExportOptions) -> None:
    """Run the model on two texts, and check what it takes and gives."""
    unknown = [spec.name for spec in model.session.inputs if spec.name not in INPUTS]
    if unknown:
        raise BadModel(
            f"input {unknown[0]!r} is not one of {', '.join(INPUTS)}, which a text model "
            "takes; use --task infer"
        )
    output = model.embed(SAMPLE_TEXTS[:2])
    if output.ndim != 2:
        raise BadModel(
            f"the first output has {output.ndim} dimensions a batch; {options.task} needs "
            "(rows, width)"
        )
    if options.form.has_labels and len(options.labels) != output.shape[1]:
        raise BadModel(
            f"the model has {output.shape[1]} classes and {len(options.labels)} labels; name "
            "them with --labels"
        )


def _check_difference(original: Original, model: TextModel) -> float:
    """The largest difference between the original's and the graph's outputs, over texts of many
    lengths.

    Raises:
        BadModel: it is larger than `MAX_DIFFERENCE`.
    """
    largest = 0.0
    for ids, types in model.encode(SAMPLE_TEXTS[::7]):
        difference = original(ids, types) - model.run([(ids, types)])
        largest = max(largest, float(np.abs(difference).max()))
    if largest > MAX_DIFFERENCE:
        raise BadModel(
            f"the exported graph differs from the original by {largest:.2g}; not published"
        )
    return largest


def _card(folder: Path, target: Path, options: ExportOptions, origin: str) -> ModelCard:
    session = OnnxSession(folder / MODEL_FILE)
    paths = [path for path in sorted(folder.glob("*")) if path.suffix in (".onnx", ".json")]
    files = {path.name: checksum(path) for path in paths}
    has_tokenizer = TOKENIZER_FILE in files
    place = target.resolve()
    return ModelCard(
        name=place.parent.name,
        version=place.name,
        tasks=options.form.tasks,
        model=MODEL_FILE,
        tokenizer=TOKENIZER_FILE if has_tokenizer else "",
        max_input_tokens=options.max_tokens if has_tokenizer else 0,
        dimension=_output_width(session) if options.form.has_embeddings else 0,
        labels=options.labels,
        # Without a mask the model would read the padding of shorter rows.
        rows_singly=all(spec.name != "attention_mask" for spec in session.inputs),
        opset=OPSET,
        quantisation="none",
        sources=(origin,),
        licence=options.licence,
        files=files,
        machine=machine(),
    )


def _output_width(session: OnnxSession) -> int:
    """The last size of the first output; 0 where it may vary."""
    if not session.outputs or not session.outputs[0].shape:
        return 0
    return session.outputs[0].shape[-1] or 0


def _labels(config: dict[str, Any], options: ExportOptions) -> tuple[str, ...]:
    """The labels of a classifier, as the user or else `config.json` names them."""
    if not options.form.has_labels:
        return ()
    named = config.get("id2label") or {}
    return options.labels or tuple(str(named[key]) for key in sorted(named, key=int))


def _max_tokens(source: Path, config: dict[str, Any]) -> int:
    """The smallest of the limits that the directory's files name."""
    limits = [
        config.get("max_position_embeddings"),
        _read_optional(source / "sentence_bert_config.json").get("max_seq_length"),
        _read_optional(source / "tokenizer_config.json").get("model_max_length"),
    ]
    real = (int(limit) for limit in limits if limit and limit <= MAX_INPUT_TOKENS)
    return min(real, default=DEFAULT_INPUT_TOKENS)


def _pooling(source: Path) -> str:
    """What sentence-transformers' own file says; mean where there is none."""
    config = _read_optional(source / "1_Pooling" / "config.json")
    return "cls" if config.get("pooling_mode_cls_token") else "mean"


def _read_optional(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.exists() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadModel(f"{path}: cannot be read ({type(error).__name__})") from None
    if not isinstance(data, dict):
        raise BadModel(f"{path}: is not a JSON object")
    return data
