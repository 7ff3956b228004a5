"""Figures, bounds and tables from journeys and sources. Nothing is measured here."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from google.protobuf.descriptor import FileDescriptor
from penstock.api.inference.v1 import inference_pb2
from penstock.bench.harness.report import Bound, Number, Table
from penstock.bench.reading.sources import kind_comparisons, text_decisions
from penstock.bench.reading.sources.contract_fields import OUTSIDE, dead_fields
from penstock.bench.reading.sources.import_cycles import cycles, import_graph
from penstock.bench.reading.sources.places import Place, exempt
from penstock.bench.reading.sources.purity import purity
from penstock.bench.reading.sources.tree import NOT_ON_A_JOURNEY, SourceTree
from penstock.bench.reading.traces.journey import Journey

COLUMNS = 100
NOT_COUNTED = ("__init__", "__main__")
"""Modules that a folder has anyway."""
LONGEST = 10
"""Rows of a table that shows the largest of something."""
BOUNDS = {
    "embed_files": Bound("<=", 22),
    "embed_function_lines": Bound("<=", 1500),
    "stream_files": Bound("<=", 28),
    "lease_files": Bound("<=", 9),
    "semantic_hit_files": Bound("<=", 14),
    "scaling_files": Bound("<=", 14),
    "incident_files": Bound("<=", 14),
    "largest_file_on_path": Bound("<=", 300),
    "largest_folder": Bound("<=", 14),
    "widest_code_line": Bound("<=", COLUMNS),
    "import_cycles": Bound("<=", 0),
    "kind_comparisons": Bound("<=", 0),
    "text_decisions": Bound("<=", 0),
    "impure_declared_pure": Bound("<=", 0),
    "dead_fields": Bound("<=", 0),
}
Figures = dict[str, Number]
Tables = list[Table]


def of_journeys(journeys: Mapping[str, Journey]) -> tuple[Figures, Tables]:
    """Figures and tables of the six journeys, by the beginnings of their figures' names."""
    figures: Figures = {}
    for name, journey in journeys.items():
        figures[f"{name}_files"] = journey.files
        if name in ("embed", "stream"):
            figures[f"{name}_function_lines"] = journey.function_lines
            figures[f"{name}_files_after_answer"] = len(journey.later)
    lengths = {row.file: row.file_lines for journey in journeys.values() for row in journey.opened}
    figures["largest_file_on_path"] = max(lengths.values(), default=0)
    longest = sorted(lengths, key=lambda file: (-lengths[file], file))[:LONGEST]
    on = {
        file: ", ".join(
            journey.title
            for journey in journeys.values()
            if any(row.file == file for row in journey.opened)
        )
        for file in longest
    }
    rows = tuple((file, lengths[file], on[file]) for file in longest)
    tables = [Table("Longest files on a journey", ("file", "lines", "journeys"), rows)]
    return figures, tables + [_opened(journey) for journey in journeys.values()]


def _opened(journey: Journey) -> Table:
    rows: list[tuple[str | Number, ...]] = [
        (number, row.program, row.file, _code(row.enters_at), row.functions, row.classes, row.lines)
        for number, row in enumerate(journey.opened, start=1)
    ]
    rows += [("later", "", file, "", "", "", "") for file in journey.later]
    title = (
        f"{journey.title}: {journey.files} files, {journey.function_lines} lines of functions "
        "entered"
    )
    columns = ("", "process", "file", "entered at", "functions", "values made", "lines of them")
    return Table(title, columns, tuple(rows))


def of_sources(tree: SourceTree) -> tuple[Figures, Tables]:
    """Figures and tables of all sources, and of what is no tool of tests and benchmarks."""
    figures, tables = _shape(tree)
    product = [one for one in tree.python if not one.path.startswith(NOT_ON_A_JOURNEY)]
    kinds = kind_comparisons.kinds_of(inference_pb2.DESCRIPTOR.message_types_by_name["Task"])
    for name, found, reasons in (
        (
            "kind_comparisons",
            kind_comparisons.kind_comparisons(product, kinds),
            kind_comparisons.EXEMPT,
        ),
        ("text_decisions", text_decisions.text_decisions(product), text_decisions.EXEMPT),
    ):
        counted, left_out = exempt(found, reasons)
        figures[name] = len(counted)
        tables += [_places(name, counted), _exempt(name, left_out, reasons)]
    declared = purity(product)
    figures |= {
        "declared_pure": len(declared.declared),
        "impure_declared_pure": len(declared.impure),
    }
    dead = dead_fields(product, contracts(tree))
    figures["dead_fields"] = len(dead)
    outside = tuple((name, why) for name, why in OUTSIDE.items())
    return figures, [
        *tables,
        _places("impure_declared_pure", declared.impure),
        Table(
            "dead_fields",
            ("message", "field", "never"),
            tuple((one.message, f"`{one.name}`", one.missing) for one in dead),
        ),
        Table("Services with callers outside, for dead_fields", ("service", "why"), outside),
    ]


def _shape(tree: SourceTree) -> tuple[Figures, Tables]:
    folders = Counter(
        str(PurePosixPath(one.path).parent)
        for one in tree.python
        if PurePosixPath(one.path).stem not in NOT_COUNTED
    )
    circles, deferred = (
        cycles(import_graph(tree.python)),
        cycles(import_graph(tree.python, deferred=True)),
    )
    wide = sorted(tree.python, key=lambda one: (-one.widest, one.path))
    over = sum(len(line) > COLUMNS for one in tree.python for line in one.text.splitlines())
    figures: Figures = {
        "largest_folder": max(folders.values(), default=0),
        "widest_code_line": wide[0].widest if wide else 0,
        "lines_over_100_columns": over,
        "import_cycles": len(circles),
        "import_cycles_deferred": len(deferred),
    }
    cycle_rows = [("when loaded", " ".join(f"`{name}`" for name in one)) for one in circles]
    cycle_rows += [
        ("in functions or for types", " ".join(f"`{name}`" for name in one)) for one in deferred
    ]
    return figures, [
        Table("Largest folders", ("folder", "modules"), tuple(folders.most_common(LONGEST))),
        Table(
            "Widest lines",
            ("file", "columns"),
            tuple((one.path, one.widest) for one in wide[:LONGEST]),
        ),
        Table("Modules that import each other", ("import", "modules"), tuple(cycle_rows)),
    ]


def contracts(tree: SourceTree) -> Sequence[FileDescriptor]:
    """Descriptors of our own contracts, those of others left out."""
    protos = tree.root / "protos"
    names = (
        path.relative_to(protos).with_suffix("").as_posix()
        for path in sorted(protos.glob("penstock/**/*.proto"))
    )
    return [importlib.import_module(f"{name.replace('/', '.')}_pb2").DESCRIPTOR for name in names]


def _places(title: str, places: Sequence[Place]) -> Table:
    rows = tuple((f"{one.file}:{one.line}", _code(one.function), _code(one.code)) for one in places)
    return Table(title, ("place", "function", "code"), rows)


def _exempt(title: str, places: Sequence[Place], reasons: Mapping[str, str]) -> Table:
    rows = tuple(
        (f"{one.file}:{one.line}", _code(one.function), reasons[one.function]) for one in places
    )
    return Table(f"{title}, exempt", ("place", "function", "why"), rows)


def _code(text: str) -> str:
    """Code for a cell of a table on a page."""
    return f"`{text}`".replace("|", "\\|") if text else ""
