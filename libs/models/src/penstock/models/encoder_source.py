"""The FP32 graph of a Hugging Face directory, and the original that it is compared with.

The graph of a BERT encoder is written from its weights and compared with a forward pass in numpy;
every other model goes through torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock.models.bert_graph import read_bert, write_bert
from penstock.models.bert_reference import BertReference
from penstock.models.export import export, fuse, load_classifier, load_encoder, require_torch
from penstock.onnx.card import BadModel
from penstock.service.written_encoders import is_written

ShowStep = Callable[[str], None]
Original = Callable[[Sequence[int], Sequence[int]], NDArray[np.float32]]
"""Gives the original's output for one text: its token ids and segments."""


@dataclass(frozen=True)
class MadeGraph:
    """A graph that was written.

    Attributes:
        fused_layers: attention layers that are one operator each.
        original: what it is compared with.
    """

    fused_layers: int
    original: Original


def make_graph(
    source: Path,
    config: Mapping[str, Any],
    target: Path,
    output: str,
    pooling: str,
    show_step: ShowStep,
) -> MadeGraph:
    """Write the graph of the directory `source` to the file `target`.

    Args:
        config: what its `config.json` says.
        output: name of the graph's output, for a graph that goes through torch.
        pooling: of an encoder, `mean` or `cls`; empty for a classifier.

    Raises:
        BadModel: a file cannot be read, or torch is needed and not installed.
    """
    if pooling and is_written(source, config):
        show_step("writing the graph")
        layers = write_bert(source, target, pooling)
        return MadeGraph(layers, BertReference(*read_bert(source), pooling).embed)
    require_torch(str(config.get("model_type") or "this architecture"))
    show_step("loading the original")
    module = _load_original(source, pooling)
    show_step("exporting to ONNX")
    with tempfile.TemporaryDirectory(prefix="penstock-export-") as scratch:
        plain = Path(scratch) / "plain.onnx"
        export(module, plain, output)
        show_step("fusing attention")
        fused = fuse(plain, target, source)
    return MadeGraph(fused.get("Attention", 0), lambda ids, types: _in_torch(module, ids, types))


def _load_original(source: Path, pooling: str) -> Any:
    """The original as a torch module."""
    try:
        return load_encoder(source, pooling) if pooling else load_classifier(source)
    except (OSError, ValueError, KeyError) as error:
        raise BadModel(f"{source}: transformers cannot load it ({type(error).__name__})") from error


def _in_torch(module: Any, ids: Sequence[int], types: Sequence[int]) -> NDArray[np.float32]:
    import torch

    arrays = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
    with torch.inference_mode():
        output = module(*(torch.tensor([arrays[name]]) for name in module.inputs))
    numbers: NDArray[np.float32] = output.numpy()
    return numbers
