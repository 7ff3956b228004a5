"""`python -m penstock.bench NAME`: run one benchmark or all, print figures, write pages.

A page is written only by a run that proves something: not by a quick one, and not where generated
data stood in for a public data set.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from penstock.bench.harness import json_lines, public_data, report
from penstock.bench.harness.circumstances import circumstances
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.registry import BENCHMARKS, MATRICES, page_of
from penstock.bench.harness.run_all import run_all
from penstock.service.default_models import missing_model
from rich.console import Console
from rich.markup import escape
from rich.table import Table

LOG = "measurements.jsonl"
"""Beside the pages: every run that wrote to one, a line each."""


def _load(name: str, *, matrix: bool = False) -> ModuleType:
    package = f"penstock.bench.{name.replace('-', '_')}"
    return importlib.import_module(
        f"{package}.matrix.benchmark" if matrix else f"{package}.benchmark"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock.bench",
        description="Measure Penstock. Comparisons are ratios of two sides of the same run.",
    )
    parser.add_argument(
        "name",
        choices=[*BENCHMARKS, "all", "list", "fetch"],
        help="the benchmark to run; or `all`, `list`, or `fetch`: which public data sets they "
        "read, where these are to be had, and whether --data holds them",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=_default_data(),
        help="folder of public data sets (default: $PENSTOCK_DATA; else generated data)",
    )
    parser.add_argument("--json", action="store_true", help="print only the last line")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a short run to see that it works; its figures prove nothing",
    )
    parser.add_argument("--write", type=Path, help="write the page and plots into this folder")
    parser.add_argument(
        "--part",
        default="",
        help="run only this part of a benchmark that has parts; --write then changes the page "
        "that is there",
    )
    parser.add_argument(
        "--matrix",
        action="store_true",
        help=f"run the longer one of {', '.join(MATRICES)}, which has a page of its own",
    )
    return parser


def _default_data() -> Path | None:
    folder = os.environ.get("PENSTOCK_DATA")
    return Path(folder) if folder else None


def _show(name: str, result: report.Result, console: Console) -> None:
    table = Table("figure", "asked", "got", "", title=name)
    for key in result.figures:
        asked = str(result.bounds.get(key, ""))
        table.add_row(key, asked, escape(result.got(key)), _coloured(result.judgement(key)))
    console.print(table)
    for extra in result.tables:
        shown = Table(*extra.columns, title=extra.title)
        for row in extra.rows:
            shown.add_row(*(cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row))
        console.print(shown)
    for note in result.notes:
        console.print(f"- {note}")
    if result.not_run:
        console.print(f"Not run: {result.not_run}")


def _coloured(judgement: report.Judgement | None) -> str:
    if judgement is None:
        return ""
    colour = {report.Judgement.MET: "green", report.Judgement.SHORT: "red"}.get(judgement, "yellow")
    return f"[{colour}]{judgement.value.strip('*')}[/]"


def _run_one(name: str, options: Options, folder: Path | None) -> None:
    module = _load(name, matrix=options.matrix)
    made_of = circumstances(name, options)
    name = page_of(name, matrix=options.matrix)
    result: report.Result = module.run(options)
    if not options.json:
        _show(name, result, Console())
    if folder is not None and (why := options.proves_nothing()):
        print(f"the page is not written: {why}", file=sys.stderr)
    elif folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _write(module, name, result, made_of, folder)
        json_lines.append(folder / LOG, report.summary(name, result, made_of))
    print(report.last_line(name, result, made_of), flush=True)


def _write(
    module: ModuleType,
    name: str,
    result: report.Result,
    made_of: Mapping[str, object],
    folder: Path,
) -> None:
    """Write a benchmark's page and plots; only its figures where it ran in part."""
    page = folder / f"{name}.md"
    if "--part" in str(made_of["command"]):
        how = f"{made_of['date']} at {made_of['commit']}, by `{made_of['command']}`"
        page.write_text(report.with_remeasured(page.read_text(), result, how))
        return
    plots = report.draw(name, result, folder)
    page.write_text(report.markdown(name, module.__doc__ or "", result, plots, made_of))


def _show_data_sets(data: Path | None) -> int:
    """Print the public data sets; 1 where a folder is given and lacks some of their files."""
    table = Table("folder", "GitHub repository", "commit", "licence", "content", "files", "here")
    complete = True
    for each in public_data.data_sets():
        states = public_data.check(each, data)
        complete &= set(states.values()) == {public_data.State.THERE}
        here = public_data.summary(states) if data else ""
        source = (each.repository, each.commit, each.licence, each.content)
        table.add_row(each.folder, *source, str(len(each.files)), here)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print("\nSHA-256 of the files, as `sha256sum -c` reads them in the folder of --data:")
    for line in public_data.checksums():
        print(line)
    return 0 if data is None or complete else 1


def _of_each(arguments: argparse.Namespace) -> list[str]:
    """The options of the command line that each benchmark is run with."""
    options = ["--write", str(arguments.write)] if arguments.write else []
    options += ["--data", str(arguments.data)] if arguments.data else []
    options += ["--quick"] if arguments.quick else []
    return options + (["--json"] if arguments.json else [])


def _problem(arguments: argparse.Namespace) -> str:
    """What is wrong with the arguments; empty for nothing."""
    if arguments.data is not None and not arguments.data.is_dir():
        return f"--data {arguments.data} is not a folder"
    name, part = arguments.name, arguments.part
    if arguments.matrix and (name not in MATRICES or part):
        return f"--matrix is for {', '.join(MATRICES)}, without --part"
    if part and (name in ("all", "fetch") or part not in getattr(_load(name), "PARTS", ())):
        return f"{name} has no part {part!r}"
    if name not in ("all", "fetch") and getattr(_load(name), "NEEDS_MODELS", False):
        return missing_model(home_folder())
    return ""


def main() -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args()
    if arguments.name == "list":
        for name in BENCHMARKS:
            print(f"{name:16} {(_load(name).__doc__ or '').strip().splitlines()[0]}")
        return 0
    if problem := _problem(arguments):
        print(f"penstock.bench: {problem}", file=sys.stderr)
        return 2
    if arguments.name == "fetch":
        return _show_data_sets(arguments.data)
    if arguments.name == "all":
        return run_all(_of_each(arguments))
    options = Options(
        arguments.data, arguments.quick, arguments.json, arguments.part, arguments.matrix
    )
    _run_one(arguments.name, options, arguments.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
