"""The log of benchmark runs: what a figure needs to be compared with a later one."""

from __future__ import annotations

import json
from pathlib import Path

from penstock.bench.harness import json_lines
from penstock.bench.harness.report import Result, Run, markdown

RUN = Run("python -m penstock.bench hop", "abc1234", "2026-03-01T10:00:00Z")


def test_a_run_is_logged_with_all_that_its_figures_depend_on(tmp_path: Path) -> None:
    result = Result({"cut": 0.123456789, "errors": 0}, context={"data": "made"})
    row = RUN.log_row("hop", result)
    json_lines.append(tmp_path / "log.jsonl", row)
    (read,) = json_lines.rows(tmp_path / "log.jsonl")
    assert read == json.loads(json.dumps(row))
    assert (read["bench"], read["commit"], read["date"]) == ("hop", RUN.commit, RUN.date)
    assert read["figures"] == {"cut": 0.12346, "errors": 0}
    assert read["cores"] > 0
    assert all(read["versions"].values())


def test_a_page_says_how_to_repeat_it() -> None:
    page = markdown("hop", "A hop.", Result({"cut": 0.5}), [], RUN)
    for line in ("- command: `python -m penstock.bench hop`", "- commit: abc1234"):
        assert line in page.splitlines()
