"""Puts a finished model folder into the repository in one step; no reader sees half of one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from penstock.onnx.card import BadModel


def publish(folder: Path, target: Path) -> Path:
    """Copy a finished folder to `target`, in place of what is there; returns `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.parent / f".{target.name}.{os.getpid()}"
    shutil.copytree(folder, copy)
    if target.exists():
        shutil.rmtree(target)
    copy.rename(target)
    return target


def publish_new(folder: Path, target: Path) -> Path:
    """Do what `publish` does for a version that is not there yet; returns `target`.

    Raises:
        BadModel: it is there. A version is never overwritten, since instances may serve it.
    """
    if target.exists():
        raise BadModel(f"{target}: is already there; name a new version")
    return publish(folder, target)
