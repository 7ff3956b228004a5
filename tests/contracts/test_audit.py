"""What `make audit` says of a report of pip-audit, and with which status it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/audit_report.py"
SOUND = {"name": "sound", "version": "1.0", "vulns": []}
WEAK = {
    "name": "weak",
    "version": "2.0",
    "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"], "aliases": [], "description": "x"}],
}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}
OWN = {"name": "penstock-rpc", "skip_reason": "distribution marked as editable"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([SOUND, OWN], 0, ["1 of 1 packages checked, 0 weaknesses known"]),
        ([SOUND, UNKNOWN], 0, ["1 of 2 packages checked", "not checked: unknown"]),
        ([SOUND, WEAK], 1, ["weak 2.0: CVE-1, mended in 2.1", "1 weaknesses known"]),
        ([UNKNOWN, OWN], 3, ["nothing was checked"]),
    ],
)
def test_a_report_is_believed_only_where_something_was_checked(
    tmp_path: Path, packages: list[dict[str, Any]], status: int, said: list[str]
) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"dependencies": packages, "fixes": []}))
    ended = subprocess.run([sys.executable, SCRIPT, report], capture_output=True, text=True)
    assert ended.returncode == status, ended.stderr
    assert all(words in ended.stdout for words in said)


def test_an_audit_that_was_broken_off_has_checked_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.touch()
    ended = subprocess.run([sys.executable, SCRIPT, report], capture_output=True, text=True)
    assert (ended.returncode, "nothing was checked" in ended.stdout) == (3, True)
