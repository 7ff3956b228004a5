"""A finished folder into the repository in one step, so that no reader ever sees half a model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from penstock.onnx.card import BadModel


def publish(folder: Path, target: Path) -> Path:
    """Copy a finished folder to `target`, replacing what is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    waiting = target.parent / f".{target.name}.{os.getpid()}"
    shutil.copytree(folder, waiting)
    if target.exists():
        shutil.rmtree(target)
    waiting.rename(target)
    return target


def publish_new(folder: Path, target: Path) -> Path:
    """As `publish`, for a version that must not be there yet.

    Raises:
        BadModel: it is; a version is never overwritten, since instances may serve it.
    """
    if target.exists():
        raise BadModel(f"{target}: is already there; name a new version")
    return publish(folder, target)
