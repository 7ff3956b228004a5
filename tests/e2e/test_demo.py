"""`make demo` in both shapes: every request is answered, a trace goes through every service of the
path, and no process imports torch or transformers: only the model factory may, in some steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from penstock.stack.shapes import SHAPES, Shape
from penstock.testkit.import_trap import ImportTrap

pytestmark = [pytest.mark.processes]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_demo_answers_every_request_and_imports_no_torch(
    home: Path, tmp_path: Path, shape: Shape
) -> None:
    """Modules named torch and transformers stand first on every process's path, and record who
    imports them.
    """
    own_home = tmp_path / "home"
    own_home.mkdir()
    (own_home / "models").symlink_to(home / "models")
    trap = ImportTrap(tmp_path / "trap", ("torch", "transformers"))
    command = [sys.executable, "-m", "penstock.stack", "--home", str(own_home)]
    command += ["demo", "--json", "--shape", shape]
    environment = {**os.environ, **trap.environment}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout.splitlines()[-1])["figures"]
    assert figures["requests"] == 400
    assert figures["errors"] == 0
    assert figures["services_in_trace"] >= 5
    assert trap.caught() == []
