"""What a report of pip-audit says: `scripts/audit_report.py REPORT.json`.

Exits 1 where a weakness is known, and 3 where no package could be checked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def lines_of(packages: Sequence[dict[str, Any]]) -> tuple[list[str], int]:
    """What to print of the packages of a report, and the exit status."""
    checked = [each for each in packages if "vulns" in each]
    foreign = [each for each in packages if "editable" not in each.get("skip_reason", "")]
    weak = [(each, known) for each in checked for known in each["vulns"]]
    lines = [
        f"{each['name']} {each['version']}: {known['id']}, mended in "
        f"{', '.join(known['fix_versions']) or 'no version'}"
        for each, known in weak
    ]
    if not checked:
        return ["audit: the advisories cannot be fetched; nothing was checked"], 3
    lines.append(f"{len(checked)} of {len(foreign)} packages checked, {len(weak)} weaknesses known")
    lines += [f"not checked: {each['name']}" for each in foreign if each not in checked]
    return lines, 1 if weak else 0


def main(report: Path) -> int:
    """Print what the report says; returns the exit status."""
    text = report.read_text(encoding="utf-8")
    lines, status = lines_of(json.loads(text)["dependencies"] if text else [])
    sys.stdout.write("\n".join(lines) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
