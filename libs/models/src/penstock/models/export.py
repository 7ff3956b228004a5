"""Export of a Hugging Face model through torch to ONNX, with fused attention.

An encoder's pooling and normalisation become part of the graph. torch and transformers are imported
by the functions that need them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock.models import layer_norm
from penstock.onnx.card import BadModel

OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
HEADS_KEYS = ("num_attention_heads", "n_heads")
WIDTH_KEYS = ("hidden_size", "dim")
"""How architectures name the number of attention heads and the width in `config.json`."""


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporter's messages off the terminal."""
    logging.getLogger("onnxruntime").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def require_torch(what: str = "") -> None:
    """Check that torch and transformers are installed; `what` needs them.

    Raises:
        BadModel: they are not; the text says how to install them.
    """
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise BadModel(
                f"{name} is not installed, which {what or 'only this step'} needs; `scripts/model "
                ".venv export …` installs it for the time of the step, `pip install "
                "'penstock-models[models]'` for good"
            )


def load_encoder(folder: Path, pooling: str = "mean") -> Any:
    """The original encoder in eager FP32 as a torch module, with pooling and L2 normalisation.

    Args:
        pooling: "mean" over the text's tokens, or "cls" for the first one.
    """
    import torch
    import transformers
    from transformers import AutoModel

    transformers.logging.disable_progress_bar()

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = AutoModel.from_pretrained(
                str(folder), attn_implementation="eager", local_files_only=True
            ).eval()
            self.inputs = _inputs_of(self.body)

        def forward(self, input_ids: Any, attention_mask: Any, *rest: Any) -> Any:
            given = dict(zip(self.inputs, (input_ids, attention_mask, *rest), strict=True))
            hidden = self.body(**given).last_hidden_state
            if pooling == "cls":
                return torch.nn.functional.normalize(hidden[:, 0], dim=-1)
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, dim=-1)

    with _quietly():
        return Encoder().eval()


def load_classifier(folder: Path) -> Any:
    """A sequence classifier or pair scorer in eager FP32, as a torch module that gives logits."""
    import torch
    from transformers import AutoModelForSequenceClassification

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = AutoModelForSequenceClassification.from_pretrained(
                str(folder), attn_implementation="eager", local_files_only=True
            ).eval()
            self.inputs = _inputs_of(self.body)

        def forward(self, *given: Any) -> Any:
            return self.body(**dict(zip(self.inputs, given, strict=True))).logits

    with _quietly():
        return Classifier().eval()


def _inputs_of(body: Any) -> tuple[str, ...]:
    """Which of our inputs the architecture takes; not all have segments."""
    known = inspect.signature(body.forward).parameters
    return tuple(name for name in INPUTS if name in known)


def export(module: Any, target: Path, output: str) -> None:
    """Write `module` to `target` as ONNX with dynamic batch and length.

    The TorchScript exporter is used because onnxruntime's transformer optimiser fuses its graphs.

    Args:
        output: name of the graph's output.
    """
    import torch

    ones = torch.ones(2, 9, dtype=torch.long)
    zeros = torch.zeros(2, 9, dtype=torch.long)
    sample = tuple(zeros if name == "token_type_ids" else ones for name in module.inputs)
    axes = {name: {0: "batch", 1: "length"} for name in module.inputs} | {output: {0: "batch"}}
    with _quietly(), torch.no_grad():
        torch.onnx.export(
            module,
            sample,
            str(target),
            input_names=list(module.inputs),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )


def fuse(source: Path, target: Path, folder: Path) -> dict[str, int]:
    """Write `source` to `target` with fused attention, layer norm and GELU; returns how many of
    each operator were fused.

    The additions before a layer norm are not fused with it; see `layer_norm`.

    Args:
        folder: the Hugging Face directory, for its `config.json`.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = json.loads((folder / "config.json").read_text())
    heads = _first_of(config, HEADS_KEYS)
    width = _first_of(config, WIDTH_KEYS)
    options = FusionOptions("bert")
    options.enable_gelu_approximation = False
    with _quietly():
        model = optimizer.optimize_model(
            str(source),
            model_type="bert",
            num_heads=heads,
            hidden_size=width,
            optimization_options=options,
            opt_level=0,
        )
        fused = {
            name: count for name, count in model.get_fused_operator_statistics().items() if count
        }
        layer_norm.unfuse(model.model)
        model.save_model_to_file(str(target))
    return fused


def _first_of(config: dict[str, int], names: Sequence[str]) -> int:
    """The first of these keys that the configuration has; 0 for none."""
    return next((config[name] for name in names if name in config), 0)
