"""A student of an encoder: the same model with some layers left out, taught to give the teacher's
embeddings. torch lives here.

Dropping layers keeps what the others know, so that little teaching suffices: Sun et al., "Patient
Knowledge Distillation" (2019), and Sajjad et al., "On the effect of dropping layers of pre-trained
transformer models" (2023).
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

BATCH, RATE, WARM_SHARE = 64, 3e-4, 0.1
SEED = 7


def distil(
    source: Path,
    target: Path,
    keep: Sequence[int],
    texts: Sequence[str],
    epochs: int,
    step: Callable[[str], None],
) -> float:
    """Write to `target` a Hugging Face directory with the layers `keep` (counted from 0) of
    `source`, taught on `texts`.

    Returns the mean cosine to the teacher over the last tenth of the teaching. `export` makes a
    model folder of the result.

    Raises:
        BadModel: torch is not installed, a layer is not there, or the architecture has no list of
            layers.
    """
    require_torch()
    import torch

    torch.manual_seed(SEED)
    teacher, student = load_encoder(source), load_encoder(source)
    layers = getattr(getattr(student.body, "encoder", None), "layer", None)
    if layers is None:
        raise BadModel(f"{source}: has no list of encoder layers to leave some out of")
    if not keep or not set(keep) <= set(range(len(layers))):
        raise BadModel(f"layers must be from 0 to {len(layers) - 1}")
    student.body.encoder.layer = torch.nn.ModuleList([layers[index] for index in keep])
    student.body.config.num_hidden_layers = len(keep)
    rows = _encoded(source, texts)
    closeness = _teach(torch, teacher, student, rows, epochs, step)
    target.mkdir(parents=True)
    student.body.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    return closeness


def _encoded(source: Path, texts: Sequence[str]) -> list[Encoded]:
    longest = int(
        json.loads((source / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    )
    found = load_tokenizer(source, "tokenizer.json").encode_batch(list(texts))
    return [(item.ids[:longest], item.type_ids[:longest]) for item in found]


def _teach(
    torch: Any,
    teacher: Any,
    student: Any,
    rows: list[Encoded],
    epochs: int,
    step: Callable[[str], None],
) -> float:
    """Batches of like length, cosine distance to the teacher's embedding, one cycle of the learning
    rate.
    """
    rng = np.random.default_rng(SEED)
    order = np.array(sorted(range(len(rows)), key=lambda index: len(rows[index][0])))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    total = epochs * len(batches)
    best = torch.optim.AdamW(student.parameters(), lr=RATE)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        best, RATE, total_steps=max(2, total + 1), pct_start=WARM_SHARE
    )
    student.train()
    seen: list[float] = []
    for _ in range(epochs):
        for number in rng.permutation(len(batches)):
            given = _tensors(torch, [rows[index] for index in batches[number]], student.takes)
            with torch.no_grad():
                wanted = teacher(*given)
            loss = 1 - (student(*given) * wanted).sum(-1).mean()
            best.zero_grad()
            loss.backward()
            best.step()
            pace.step()
            seen.append(1 - float(loss.detach()))
            if len(seen) % 10 == 0:
                step(f"teaching, batch {len(seen)} of {total}, cosine {np.mean(seen[-10:]):.4f}")
    student.eval()
    return float(np.mean(seen[-max(1, len(seen) // 10) :]))


def _tensors(torch: Any, rows: Sequence[Encoded], takes: Sequence[str]) -> list[Any]:
    longest = max(len(ids) for ids, _ in rows)
    columns = {name: torch.zeros(len(rows), longest, dtype=torch.long) for name in takes}
    for index, (ids, types) in enumerate(rows):
        for name, values in (
            ("input_ids", ids),
            ("attention_mask", [1] * len(ids)),
            ("token_type_ids", types),
        ):
            if name in columns:
                columns[name][index, : len(ids)] = torch.tensor(values)
    return [columns[name] for name in takes]
