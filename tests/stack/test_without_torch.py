"""Nothing that serves imports torch or transformers: only the model factory may, in some steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from penstock.testkit.import_trap import ImportTrap


@pytest.mark.processes
def test_the_demo_imports_neither_torch_nor_transformers(home: Path, tmp_path: Path) -> None:
    """Modules of these names stand first on every process's path, and record who imports them."""
    own_home = tmp_path / "home"
    own_home.mkdir()
    (own_home / "models").symlink_to(home / "models")
    trap = ImportTrap(tmp_path / "trap", ("torch", "transformers"))
    command = [sys.executable, "-m", "penstock.stack", "--home", str(own_home), "demo", "--json"]
    environment = {**os.environ, **trap.environment}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert trap.caught() == []


def test_the_trap_catches_an_import_in_a_child(tmp_path: Path) -> None:
    trap = ImportTrap(tmp_path / "trap", ("torch",))
    command = [sys.executable, "-c", "import torch"]
    environment = {**os.environ, **trap.environment}
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ended.returncode != 0
    assert trap.caught() == ["torch -c"]
