"""`replay`: a trace in, explained decisions out; a bad trace is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from penstock.scaler import replay


def trace(folder: Path, lines: list[str]) -> str:
    path = folder / "trace.csv"
    path.write_text("\n".join(["time,work", *lines]) + "\n")
    return str(path)


def test_a_trace_is_replayed_with_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"2026-03-01T{step // 60:02d}:{step % 60:02d}:00,{600 if 90 <= step < 120 else 60}" for step in range(180)]
    assert replay.main([trace(tmp_path, lines), "--capacity", "1", "--json"]) == 0
    *decisions, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(decisions) == 180 == summary["steps"]
    assert all(decision["reason"] for decision in decisions)
    assert summary["peak_instances"] == 10 and 0 < summary["short_share"] < 0.1
    assert summary["mean_instances"] < 5


def test_unix_seconds_and_text_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{1_800_000_000 + 60 * step},{10 + step % 7 * 5}" for step in range(50)]
    assert replay.main([trace(tmp_path, lines)]) == 0
    assert "->" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["1,5"], "at least 3 lines"),
        (["1,5", "2,x", "3,5"], "line 3"),
        (["1,5", "2,-5", "3,5"], "line 3"),
        (["1,5", "soon,5", "3,5"], "line 3"),
        (["3,5", "3,5", "3,5"], "do not go up"),
    ],
)
def test_a_bad_trace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], said: str
) -> None:
    assert replay.main([trace(tmp_path, lines)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and not captured.out


def test_a_missing_file_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["/nowhere/trace.csv"]) == 2
    assert "cannot be read" in capsys.readouterr().err
