"""The models that run on this machine: those that the configuration file's section `instances`
names, and those that `penstock models add` brought.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penstock.service.settings import read_file

ADDED_FILE = "instances.yaml"
"""In the home folder: the instances of added models, of the same form as the section."""


def local_models(config_file: Path | None, home: Path) -> list[str]:
    """The names of the models.

    Raises:
        BadConfig: one of the files cannot be read.
    """
    files = [file for file in (config_file, home / ADDED_FILE) if file is not None]
    return [name for file in files if file.exists() for name in _models_of(file)]


def _models_of(file: Path) -> Iterator[str]:
    """The names in one file; what is not of the right form is left to whoever starts instances."""
    entries = read_file(file).get("instances")
    for entry in entries if isinstance(entries, list) else ():
        models = entry.get("models") if isinstance(entry, dict) else None
        yield from (map(str, models) if isinstance(models, list) else ())
