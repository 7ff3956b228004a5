"""A benchmark that needs models which are not there says so before it measures anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_what_is_missing_is_one_line_and_two(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "penstock.bench", "overhead"],
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].endswith("run `make model`")
