"""The command `replay`: a trace in, decisions with reasons out; a bad trace is refused with its
line, a bad option with its name.
"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from penstock.scaler.forecast.features import Sample
from penstock.scaler.replay.command import main
from penstock.scaler.replay.trace_file import BadTrace, Columns, read_trace


def write_trace(folder: Path, lines: list[str]) -> str:
    """Write a trace with a head; returns its path."""
    return write_lines(folder, ["time,work", *lines])


def write_lines(folder: Path, lines: list[str]) -> str:
    path = folder / "trace.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_every_step_of_a_trace_gets_a_decision_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"2026-03-01T{step // 60:02d}:{step % 60:02d}:00,{600 if 90 <= step < 120 else 60}"
        for step in range(180)
    ]
    assert main([write_trace(tmp_path, lines), "--capacity", "1", "--json"]) == 0
    *decisions, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(decisions) == 180 == summary["steps"]
    assert all(decision["reason"] for decision in decisions)
    assert summary["peak_instances"] == 10 and 0 < summary["short_share"] < 0.1
    assert summary["mean_instances"] < 5


def test_times_may_be_unix_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{1_800_000_000 + 60 * step},{10 + step % 7 * 5}" for step in range(50)]
    assert main([write_trace(tmp_path, lines)]) == 0
    assert "->" in capsys.readouterr().out


DATA = ["1,5", "2,6", "3,7"]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], "at least 3 lines"),
        (["time,work", "1,5"], "at least 3 lines"),
        (["time;work", "1;5"], "line 1: needs at least two columns"),
        (["time,work", "1,5", "2,x", "3,5"], "line 3"),
        (["time,work", "1,5", "2,-5", "3,5"], "line 3"),
        (["time,work", "1,5", "2,nan", "3,5"], "line 3"),
        (["time,work", "1,5", "2", "3,5"], "line 3"),
        (["time,work", "1,5", "soon,5", "3,5"], "line 3"),
        (["time,work", "1,5", "", "3,5", "2,5"], "line 5: its time is not after"),
        (["3,5", "3,5", "3,5"], "line 2: its time is not after"),
        (["time,work", *(f"17000000{step}0000,5" for step in range(4))], "not milliseconds"),
        (["time,work", '"1,5', "2,6"], "line 3"),
    ],
)
def test_a_bad_trace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], text: str
) -> None:
    assert main([write_lines(tmp_path, lines)]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and not captured.out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--max-instances", "0"], "--max-instances: "),
        (["--level", "1.5"], "--level: "),
        (["--lead-time-s", "-5"], "--lead-time-s: "),
        (
            ["--min-instances", "5", "--max-instances", "2"],
            "min_instances (5) is above max_instances (2)",
        ),
        (["--shortage-cost", "9"], "shortage_cost and excess_cost must be given together"),
        (["--work", "calls"], "--work: there is no column 'calls'; the head has time, work"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--plot", "/nowhere/plot.svg"], "/nowhere/plot.svg"),
    ],
)
def test_a_bad_option_is_refused_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    assert main([write_trace(tmp_path, DATA), *options]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and not captured.out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--least", "--min-instances"),
        ("--most", "--max-instances"),
        ("--under", "--shortage-cost"),
        ("--over", "--excess-cost"),
        ("--utilisation", "--target-utilisation"),
        ("--lead-s", "--lead-time-s"),
    ],
)
def test_an_old_name_of_an_option_is_refused_with_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([write_trace(tmp_path, DATA), old, "1"])
    assert caught.value.code == 2
    assert f"{old} has a new name; use {new}" in capsys.readouterr().err


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/nowhere/trace.csv"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_trace_needs_no_head_and_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    bare, marked = tmp_path / "bare.csv", tmp_path / "marked.csv"
    bare.write_text("\n".join(DATA))
    marked.write_text("\ufefftime,work\r\n" + "\r\n".join(DATA))
    expected = ([Sample(1.0, 5.0), Sample(2.0, 6.0), Sample(3.0, 7.0)], 1.0)
    assert read_trace(bare) == expected
    assert read_trace(marked) == expected


def test_lines_of_single_requests_are_added_up(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text(
        "TIMESTAMP,in,out\n"
        "2023-11-16 18:17:03.9799600,40,1\n"
        "2023-11-16 18:17:01,2,1\n"
        "2023-11-16 18:17:25.5,3,1\n"
    )
    samples, interval_s = read_trace(path, Columns(work="in", bin_s=10.0))
    assert interval_s == 10.0 and [sample.work for sample in samples] == [42.0, 0.0, 3.0]
    with pytest.raises(BadTrace, match="at most"):
        read_trace(path, Columns(bin_s=1e-6))


CONFIG = """
scaling:
  pools:
    - name: m
      min_instances: 2
      max_instances: 3
      capacity: 1
      shortage_cost: 9
      excess_cost: 1
    - name: n
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "penstock.yaml"
    path.write_text(CONFIG)
    return path


def test_a_pool_of_the_configuration_is_replayed_and_drawn(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{1_800_000_000 + 60 * step},{10 + step % 7 * 50}" for step in range(60)]
    plot = tmp_path / "plot.svg"
    trace = write_trace(tmp_path, lines)
    options = ["--config", str(config), "--pool", "m", "--json", "--plot", str(plot)]
    assert main([trace, *options]) == 0
    *decisions, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {decision["wanted"] for decision in decisions} <= {2, 3}
    assert decisions[0]["level"] == 0.9
    assert summary["capacity"] == 1.0
    root = ElementTree.parse(plot).getroot()
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 2


def test_an_unknown_pool_of_the_configuration_is_refused_with_the_known_ones(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = write_trace(tmp_path, DATA)
    assert main([trace, "--config", str(config), "--pool", "x"]) == 2
    assert "the file has m, n" in capsys.readouterr().err


def test_within_a_long_step_the_scaler_decides_as_often_as_when_it_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{1_800_000_000 + 1800 * step},{1800 * (50 if step else 1)}" for step in range(4)]
    assert (
        main([write_trace(tmp_path, lines), "--capacity", "1", "--max-instances", "60", "--json"])
        == 0
    )
    decisions = [json.loads(line) for line in capsys.readouterr().out.splitlines()][:-1]
    assert (decisions[1]["current"], decisions[1]["wanted"]) == (1, 50), (
        "four, then twice, every 15 s of half an hour"
    )
