"""A student of an encoder: the same model without some of its layers, taught to give the teacher's
embeddings.

The layers that stay keep what they know, so little teaching suffices: Sun et al., "Patient
Knowledge Distillation" (2019), and Sajjad et al., "On the effect of dropping layers of pre-trained
transformer models" (2023). torch is imported by the functions that need it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from penstock.models.export import load_encoder, require_torch
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import Encoded, load_tokenizer

BATCH_ROWS = 64
LEARNING_RATE = 3e-4
WARM_UP_SHARE = 0.1
SEED = 7
COPIED_FILES = ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json")

ShowStep = Callable[[str], None]


def distil(
    source: Path,
    target: Path,
    layers: Sequence[int],
    texts: Sequence[str],
    epochs: int,
    show_step: ShowStep,
) -> float:
    """Write to `target` a Hugging Face directory with some of the layers of `source`, taught on
    `texts`; returns the mean cosine to the teacher over the last tenth of the batches.

    `export` makes a model folder of the result.

    Args:
        layers: the layers to keep, counted from 0.
        epochs: passes over the texts.

    Raises:
        BadModel: torch is not installed, a layer is not there, or the architecture has no list of
            layers.
    """
    require_torch()
    import torch

    torch.manual_seed(SEED)
    teacher, student = load_encoder(source), load_encoder(source)
    _keep_layers(torch, student, layers, source)
    batches = _batches(_encode(source, texts))
    cosine = _teach(torch, teacher, student, batches, epochs, show_step)
    target.mkdir(parents=True)
    student.body.save_pretrained(target)
    for name in COPIED_FILES:
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    return cosine


def _keep_layers(torch: Any, student: Any, layers: Sequence[int], source: Path) -> None:
    encoder = getattr(student.body, "encoder", None)
    present = getattr(encoder, "layer", None)
    if present is None:
        raise BadModel(f"{source}: has no list of encoder layers to leave some out of")
    if not layers or not set(layers) <= set(range(len(present))):
        raise BadModel(f"layers must be from 0 to {len(present) - 1}")
    student.body.encoder.layer = torch.nn.ModuleList([present[index] for index in layers])
    student.body.config.num_hidden_layers = len(layers)


def _encode(source: Path, texts: Sequence[str]) -> list[Encoded]:
    """Token and segment ids, cut to the model's longest input."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    longest = int(config["max_position_embeddings"])
    encodings = load_tokenizer(source, "tokenizer.json").encode_batch(list(texts))
    return [(encoding.ids[:longest], encoding.type_ids[:longest]) for encoding in encodings]


def _batches(rows: list[Encoded]) -> list[list[Encoded]]:
    """The rows in batches of similar length."""
    by_length = sorted(rows, key=lambda row: len(row[0]))
    starts = range(0, len(by_length), BATCH_ROWS)
    return [by_length[start : start + BATCH_ROWS] for start in starts]


def _teach(
    torch: Any,
    teacher: Any,
    student: Any,
    batches: list[list[Encoded]],
    epochs: int,
    show_step: ShowStep,
) -> float:
    """Minimise the cosine distance to the teacher's embeddings, over one cycle of the learning
    rate; returns the mean cosine over the last tenth of the batches.
    """
    rng = np.random.default_rng(SEED)
    total = epochs * len(batches)
    optimiser = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=max(2, total + 1), pct_start=WARM_UP_SHARE
    )
    student.train()
    cosines: list[float] = []
    for _ in range(epochs):
        for number in rng.permutation(len(batches)):
            inputs = _tensors(torch, batches[number], student.inputs)
            with torch.no_grad():
                embeddings = teacher(*inputs)
            loss = 1 - (student(*inputs) * embeddings).sum(-1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            cosines.append(1 - float(loss.detach()))
            if len(cosines) % 10 == 0:
                recent = np.mean(cosines[-10:])
                show_step(f"teaching, batch {len(cosines)} of {total}, cosine {recent:.4f}")
    student.eval()
    return float(np.mean(cosines[-max(1, len(cosines) // 10) :]))


def _tensors(torch: Any, rows: Sequence[Encoded], names: Sequence[str]) -> list[Any]:
    """The inputs with these names, padded to the longest row."""
    longest = max(len(ids) for ids, _ in rows)
    tensors = {name: torch.zeros(len(rows), longest, dtype=torch.long) for name in names}
    for index, (ids, types) in enumerate(rows):
        columns = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
        for name in names:
            tensors[name][index, : len(ids)] = torch.tensor(columns[name])
    return [tensors[name] for name in names]
