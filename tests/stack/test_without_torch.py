"""Nothing that serves imports torch or transformers: only the model factory may, in some steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECORDING_MODULE = """
import os, pathlib, sys
name = " ".join([__name__, *sys.argv])
pathlib.Path(os.environ["IMPORTS"], str(os.getpid())).write_text(name)
raise ImportError(name)
"""


@pytest.mark.processes
def test_the_demo_imports_neither_torch_nor_transformers(home: Path, tmp_path: Path) -> None:
    """Modules of these names stand first on every process's path, and record who imports them."""
    modules, imports, own_home = (tmp_path / name for name in ("modules", "imports", "home"))
    for folder in (modules, imports, own_home):
        folder.mkdir()
    for name in ("torch", "transformers"):
        (modules / f"{name}.py").write_text(RECORDING_MODULE)
    (own_home / "models").symlink_to(home / "models")
    environment = {**os.environ, "PYTHONPATH": str(modules), "IMPORTS": str(imports)}
    command = [sys.executable, "-m", "penstock.stack", "--home", str(own_home), "demo", "--json"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert [path.read_text() for path in imports.iterdir()] == []
