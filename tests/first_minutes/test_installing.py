"""What a set-up that fails says: one line with the cause, not with its consequence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "scripts" / "install"
NO_NETWORK = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(': Failed
ERROR: Could not find a version that satisfies the requirement numpy==2.4.6 (from versions: 2.4.4)
ERROR: No matching distribution found for numpy==2.4.6
"""
FULL_DISK = """\
ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device
"""
NO_SUCH_VERSION = """\
ERROR: Could not find a version that satisfies the requirement numpy==99 (from versions: 2.4.6)
ERROR: No matching distribution found for numpy==99
"""


@pytest.mark.parametrize(
    ("complaint", "said"),
    [
        (NO_NETWORK, "the package index does not answer; check the network"),
        (FULL_DISK, "the disk is full; make room"),
        (NO_SUCH_VERSION, "the requirement numpy==99"),
    ],
)
def test_the_cause_is_said_in_one_line(tmp_path: Path, complaint: str, said: str) -> None:
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    (tmp_path / "complaint").write_text(complaint)
    pip.write_text(f"#!/bin/sh\ncat '{tmp_path}/complaint' >&2\nexit 1\n")
    pip.chmod(0o755)
    ended = subprocess.run(
        [INSTALL, tmp_path, "numpy"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
