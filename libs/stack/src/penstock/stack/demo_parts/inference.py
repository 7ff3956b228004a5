"""The quantised model beside the original: size, speed in this process, how alike their answers are
and how often they are right.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import TextModel
from penstock.stack.stack import Stack
from penstock.stack.workload import agent_requests
from rich.console import Console
from rich.table import Table

TITLE = "inference: quantised against original"
MODEL, ORIGINAL = "all-MiniLM-L6-v2", "all-MiniLM-L6-v2-fp32"
TEXTS = 48
HALF = 5
"""Runs of an agent that the means are made from; the others are tested."""


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Measure both on the demo's own texts, one thread, a text at a time."""
    models = stack.plan.home / "models"
    try:
        sides = [
            await asyncio.to_thread(TextModel.load, models / name / "1")
            for name in (ORIGINAL, MODEL)
        ]
    except BadModel as error:
        console.print(f"left out: {error}")
        return {}
    texts = [request.text for request in agent_requests()][:TEXTS]
    speeds = [await asyncio.to_thread(_ms_a_text, side, texts) for side in sides]
    sizes = [_bytes(models, name) for name in (ORIGINAL, MODEL)]
    right = [await asyncio.to_thread(_accuracy, side) for side in sides]
    figures = sides[1].card.figures
    table = Table("", "original FP32", "quantised INT8", "ratio")
    table.add_row(
        "size on disk, MB",
        *(f"{size / 1e6:.1f}" for size in sizes),
        f"{sizes[0] / sizes[1]:.2f}× smaller",
    )
    table.add_row(
        "ms a text, one thread",
        *(f"{speed:.2f}" for speed in speeds),
        f"{speeds[0] / speeds[1]:.2f}× faster",
    )
    table.add_row("cosine to the original, mean", "1", f"{figures['cosine_mean']:.4f}", "")
    table.add_row("same nearest neighbour", "1", f"{figures['neighbour_agreement']:.2f}", "")
    table.add_row(
        "right step of an agent's ten",
        *(f"{share:.3f}" for share in right),
        f"{right[1] / right[0]:.3f} kept",
    )
    console.print(table)
    return {
        "int8_size_ratio": round(sizes[0] / sizes[1], 2),
        "int8_speedup": round(speeds[0] / speeds[1], 2),
        "int8_accuracy_kept": round(right[1] / right[0], 3),
    }


def _accuracy(model: TextModel) -> float:
    """Share of texts whose step has the nearest mean: means from one half of an agent's runs, texts
    from the other.
    """
    asked = list(agent_requests())
    vectors = np.concatenate([model.embed([request.text]) for request in asked])
    runs = np.array([int(request.run_id.rpartition("-")[2]) for request in asked])
    right = tested = 0
    for tenant in {request.tenant for request in asked}:
        own = np.array([request.tenant == tenant for request in asked])
        steps = np.array([request.step for request in asked])
        names = np.unique(steps[own])
        means = np.stack(
            [vectors[own & (runs <= HALF) & (steps == name)].mean(axis=0) for name in names]
        )
        chosen = names[np.argmax(vectors[own & (runs > HALF)] @ means.T, axis=1)]
        right += int(np.sum(chosen == steps[own & (runs > HALF)]))
        tested += len(chosen)
    return right / tested


def _ms_a_text(model: TextModel, texts: list[str]) -> float:
    model.embed(texts[:4])
    began = time.perf_counter()
    for text in texts:
        model.embed([text])
    return (time.perf_counter() - began) * 1e3 / len(texts)


def _bytes(models: Path, name: str) -> int:
    return (models / name / "1" / "model.onnx").stat().st_size
