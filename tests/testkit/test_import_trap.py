"""The import trap, which tests use to show that nothing that serves imports torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from penstock.testkit.import_trap import ImportTrap


def test_the_trap_catches_an_import_in_a_child(tmp_path: Path) -> None:
    trap = ImportTrap(tmp_path / "trap", ("torch",))
    command = [sys.executable, "-c", "import torch"]
    environment = {**os.environ, **trap.environment}
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ended.returncode != 0
    assert trap.caught() == ["torch -c"]
