"""Which public data sets the benchmarks read, and whether a folder holds them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from penstock.bench.__main__ import main
from penstock.bench.harness.options import GENERATED, Options
from penstock.bench.harness.public_data import DataSet, State, check, data_sets, summary

CONTENT = b"text,category"
SET = DataSet(
    "intents",
    "owner/name",
    "abc1234",
    "MIT",
    "queries",
    {"train.csv": hashlib.sha256(CONTENT).hexdigest(), "test.csv": "0" * 64},
)


def test_each_file_is_there_or_missing_or_another(tmp_path: Path) -> None:
    folder = tmp_path / SET.folder
    folder.mkdir()
    (folder / "train.csv").write_bytes(CONTENT)
    states = check(SET, tmp_path)
    assert states == {"train.csv": State.THERE, "test.csv": State.MISSING}
    assert summary(states) == "1 of 2 there; not test.csv"
    (folder / "test.csv").write_bytes(CONTENT)
    assert check(SET, tmp_path)["test.csv"] is State.DIFFERS
    assert summary(check(SET, None)) == "missing"


def test_every_data_set_names_its_source_and_licence() -> None:
    for each in data_sets():
        assert each.repository.count("/") == 1
        assert each.commit
        assert each.licence
        assert each.files


def test_the_list_is_printed_and_an_incomplete_folder_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["penstock.bench", "fetch", "--data", str(tmp_path)])
    assert main() == 1
    printed = capsys.readouterr().out
    for each in data_sets():
        assert each.folder in printed
        for name, digest in each.files.items():
            assert f"{digest}  {each.folder}/{name}\n" in printed


def test_a_quick_run_overwrites_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["penstock.bench", "index", "--json", "--quick", "--write", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0
    assert "the page is not written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_figures_of_generated_data_belong_on_no_page(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    options = Options(tmp_path)
    assert options.source("there") == "there"
    assert not options.proves_nothing()
    assert options.source("xquad") == GENERATED
    assert "xquad" in options.proves_nothing()
