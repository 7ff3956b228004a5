"""Puts a finished model folder into the repository in one step; no reader sees half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from penstock.onnx.card import BadModel


def publish(folder: Path, target: Path) -> Path:
    """Copy a finished folder to `target`, in place of what is there; returns `target`.

    Raises:
        BadModel: the copy cannot be written; nothing of it is left.
    """
    copy = target.parent / f".{target.name}.{os.getpid()}"
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, copy)
    except OSError as error:
        shutil.rmtree(copy, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise BadModel(f"{target}: cannot be written ({_reason(error)})") from None
    if target.exists():
        shutil.rmtree(target)
    copy.rename(target)
    return target


def _reason(error: OSError) -> str:
    """Why a tree was not copied: `shutil` lists source, target and reason of each failed file."""
    if isinstance(error, shutil.Error):
        return str(error.args[0][0][2])
    return error.strerror or str(error)


def publish_new(folder: Path, target: Path) -> Path:
    """Do what `publish` does for a version that is not there yet; returns `target`.

    Raises:
        BadModel: it is there. A version is never overwritten, since instances may serve it.
    """
    if target.exists():
        raise BadModel(f"{target}: is already there; name a new version")
    return publish(folder, target)
