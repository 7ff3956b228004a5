"""Modules that record who imports them, in place of packages that nobody should import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

RECORDING_MODULE = """
import os, pathlib, sys
name = " ".join([__name__, *sys.argv])
pathlib.Path(os.environ["PYTHON_IMPORT_TRAP"], str(os.getpid())).write_text(name)
raise ImportError(name)
"""


class ImportTrap:
    """Catches imports in every Python process that runs with `environment`."""

    def __init__(self, folder: Path, packages: Sequence[str]) -> None:
        """`folder` is made here, and holds what is caught."""
        self._modules, self._caught = folder / "modules", folder / "caught"
        for each in (self._modules, self._caught):
            each.mkdir(parents=True)
        for package in packages:
            (self._modules / f"{package}.py").write_text(RECORDING_MODULE)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that put the recording modules first on the path."""
        return {"PYTHONPATH": str(self._modules), "PYTHON_IMPORT_TRAP": str(self._caught)}

    def caught(self) -> list[str]:
        """A line for each process that imported one of them: the package and the command."""
        return sorted(path.read_text() for path in self._caught.iterdir())
