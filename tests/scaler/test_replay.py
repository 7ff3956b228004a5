"""`replay`: a trace in, explained decisions out; a bad trace is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from penstock.scaler.replay import replay
from penstock.scaler.replay.trace_file import BadTrace, Columns, read
from penstock.scaler.samples import Sample


def trace(folder: Path, lines: list[str]) -> str:
    return written(folder, ["time,work", *lines])


def written(folder: Path, lines: list[str]) -> str:
    path = folder / "trace.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_trace_is_replayed_with_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"2026-03-01T{step // 60:02d}:{step % 60:02d}:00,{600 if 90 <= step < 120 else 60}"
        for step in range(180)
    ]
    assert replay.main([trace(tmp_path, lines), "--capacity", "1", "--json"]) == 0
    *decisions, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(decisions) == 180 == summary["steps"]
    assert all(decision["reason"] for decision in decisions)
    assert summary["peak_instances"] == 10 and 0 < summary["short_share"] < 0.1
    assert summary["mean_instances"] < 5


def test_unix_seconds_and_text_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{1_800_000_000 + 60 * step},{10 + step % 7 * 5}" for step in range(50)]
    assert replay.main([trace(tmp_path, lines)]) == 0
    assert "->" in capsys.readouterr().out


DATA = ["1,5", "2,6", "3,7"]


@pytest.mark.parametrize(
    ("lines", "said"),
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
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], said: str
) -> None:
    assert replay.main([written(tmp_path, lines)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and not captured.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--most", "0"], "--most: "),
        (["--level", "1.5"], "--level: "),
        (["--lead-s", "-5"], "--lead-s: "),
        (["--least", "5", "--most", "2"], "least (5) is above most (2)"),
        (["--under", "9"], "under and over come together"),
        (["--work", "calls"], "--work: there is no column 'calls'; the head has time, work"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--plot", "/nowhere/plot.svg"], "/nowhere/plot.svg"),
    ],
)
def test_a_bad_option_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert replay.main([trace(tmp_path, DATA), *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and not captured.out


def test_a_missing_file_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["/nowhere/trace.csv"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_trace_needs_no_head_and_may_be_marked_as_unicode(tmp_path: Path) -> None:
    bare, marked = tmp_path / "bare.csv", tmp_path / "marked.csv"
    bare.write_text("\n".join(DATA))
    marked.write_text("\ufefftime,work\r\n" + "\r\n".join(DATA))
    assert (
        read(bare) == read(marked) == ([Sample(1.0, 5.0), Sample(2.0, 6.0), Sample(3.0, 7.0)], 1.0)
    )


def test_lines_of_single_requests_are_added_up(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text(
        "TIMESTAMP,in,out\n2023-11-16 18:17:03.9799600,40,1\n2023-11-16 "
        "18:17:01,2,1\n2023-11-16 18:17:25.5,3,1\n"
    )
    samples, interval_s = read(path, Columns(work="in", bin_s=10.0))
    assert interval_s == 10.0 and [sample.work for sample in samples] == [42.0, 0.0, 3.0]
    with pytest.raises(BadTrace, match="at most"):
        read(path, Columns(bin_s=1e-6))


def test_a_pool_of_the_configuration_is_replayed_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text(
        "scaling: {pools: [{name: m, least: 2, most: 3, capacity: 1, under: 9, over: 1}, "
        "{name: n}]}"
    )
    lines = [f"{1_800_000_000 + 60 * step},{10 + step % 7 * 50}" for step in range(60)]
    plot = tmp_path / "plot.svg"
    words = [
        trace(tmp_path, lines),
        "--config",
        str(config),
        "--pool",
        "m",
        "--json",
        "--plot",
        str(plot),
    ]
    assert replay.main(words) == 0
    *decisions, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {decision["wanted"] for decision in decisions} <= {2, 3} and decisions[0]["level"] == 0.9
    assert summary["capacity"] == 1.0
    drawn = ElementTree.parse(plot).getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}polyline")) == 2
    assert replay.main([*words[:3], "--pool", "x"]) == 2
    assert "the file has m, n" in capsys.readouterr().err


def test_a_long_step_gives_the_rates_time_to_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{1_800_000_000 + 1800 * step},{1800 * (50 if step else 1)}" for step in range(4)]
    assert replay.main([trace(tmp_path, lines), "--capacity", "1", "--most", "60", "--json"]) == 0
    decisions = [json.loads(line) for line in capsys.readouterr().out.splitlines()][:-1]
    assert (decisions[1]["current"], decisions[1]["wanted"]) == (1, 50), (
        "four, then twice, every 15 s of half an hour"
    )
