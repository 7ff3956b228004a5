"""Export of a sentence encoder through torch to ONNX: pooling and normalisation inside the graph, attention fused.

torch and transformers are imported by the functions that need them; only the model factory has them.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporter's remarks about itself off the terminal."""
    logging.getLogger("onnxruntime").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def load_encoder(folder: Path) -> Any:
    """The original model in eager FP32 with mean pooling and L2 normalisation, as a torch module of three inputs."""
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

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            hidden = self.body(input_ids, attention_mask, token_type_ids).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, dim=-1)

    with _quietly():
        return Encoder().eval()


def load_classifier(folder: Path) -> Any:
    """A sequence classifier or token-pair scorer in eager FP32, its logits as output."""
    import torch
    from transformers import AutoModelForSequenceClassification

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = AutoModelForSequenceClassification.from_pretrained(
                str(folder), attn_implementation="eager", local_files_only=True
            ).eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.body(input_ids, attention_mask, token_type_ids).logits

    with _quietly():
        return Classifier().eval()


def export(module: Any, target: Path, output: str) -> None:
    """Write `module` to `target` as ONNX with dynamic batch and length.

    The classic exporter is used because its graphs are the ones that onnxruntime's transformer optimiser fuses.
    """
    import torch

    sample = (
        torch.ones(2, 9, dtype=torch.long),
        torch.ones(2, 9, dtype=torch.long),
        torch.zeros(2, 9, dtype=torch.long),
    )
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS} | {output: {0: "batch"}}
    with _quietly(), torch.no_grad():
        torch.onnx.export(
            module,
            sample,
            str(target),
            input_names=list(INPUTS),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )


def fuse(source: Path, target: Path, folder: Path) -> dict[str, int]:
    """Fuse attention, layer norm and GELU; returns how many of each were fused."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = json.loads((folder / "config.json").read_text())
    options = FusionOptions("bert")
    options.enable_gelu_approximation = False
    with _quietly():
        model = optimizer.optimize_model(
            str(source),
            model_type="bert",
            num_heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"],
            optimization_options=options,
            opt_level=0,
        )
        model.save_model_to_file(str(target))
    return {name: count for name, count in model.get_fused_operator_statistics().items() if count}
