"""What the benchmark `reading` counts of a journey, and what its recorder notes in a process of its
own.
"""

from __future__ import annotations

import asyncio
import sys
import textwrap
from pathlib import Path

from penstock.bench.reading.figures import of_journeys
from penstock.bench.reading.sources.tree import SourceTree
from penstock.bench.reading.traces.journey import (
    Entered,
    Recording,
    build_journey,
    entered_in_all,
    entered_in_any,
    without_read,
)
from penstock.bench.reading.traces.recording import Recorders, recorded_processes

MODULE = '''
"""Two functions, one in the other, a decorated one, and two kinds of values."""

import functools
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Point:
    x: int


class Pair(NamedTuple):
    left: int


def outer(values):
    """Makes a list."""

    def inner(value):
        return value + 1

    return [inner(value) for value in values]


@functools.cache
def remembered(value):
    return value


def never():
    return None
'''
FILE = "services/shop/src/penstock/shop/prices.py"


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text).lstrip("\n"))


def sources(root: Path) -> SourceTree:
    write(root, FILE, MODULE)
    write(root, "libs/core/src/penstock/core/clock.py", "def now():\n    return 0\n")
    write(root, "services/shop/src/penstock/shop/rule.lua", "return 1\n")
    write(root, "libs/api/src/penstock/api/shop_pb2.py", "x = 1\n")
    write(root, "libs/bench/src/penstock/bench/load.py", "def load():\n    return 1\n")
    return SourceTree(root)


def entered(name: str, line: int, program: str = "shop", file: str = FILE) -> Entered:
    return Entered(program, file, name, line)


OUTER, INNER = entered("outer", 17), entered("outer.<locals>.inner", 20)
REMEMBERED, POINT = entered("remembered", 26), entered("Point", 0)


def recording(*rows: tuple[Entered, int], answered: int = 100) -> Recording:
    return Recording(dict(rows), answered)


def test_only_what_every_repeat_enters_before_the_answer_is_on_the_journey() -> None:
    first = recording((OUTER, 10), (INNER, 20), (REMEMBERED, 30), (POINT, 110))
    second = recording((OUTER, 15), (INNER, 101), (POINT, 40))
    assert entered_in_all([first, second]) == {OUTER}
    assert entered_in_all([first, second], answered=False) == {OUTER, INNER, POINT}
    assert entered_in_any([first, second]) == {OUTER, INNER, REMEMBERED, POINT}
    assert entered_in_all([]) == frozenset()


def test_what_was_read_in_one_program_is_not_read_again_in_another() -> None:
    elsewhere = entered("outer", 17, program="other")
    assert without_read([elsewhere, INNER], [OUTER]) == {INNER}


def test_a_line_is_counted_once_and_a_constructed_class_opens_its_file(tmp_path: Path) -> None:
    tree = sources(tmp_path)
    clock = entered("now", 1, file="libs/core/src/penstock/core/clock.py")
    script = entered(
        "the script", 0, program="store", file="services/shop/src/penstock/shop/rule.lua"
    )
    order = recording((clock, 1), (OUTER, 2), (INNER, 3), (REMEMBERED, 4), (POINT, 5), (script, 6))
    made = build_journey("Buy", set(order.first_ns), order, tree, later=[POINT])
    assert made.files == 3
    assert made.function_lines == 2 + 7 + 3, "the inner function's lines are the outer one's too"
    assert [(row.program, row.enters_at, row.functions, row.classes) for row in made.opened] == [
        ("shop", "now", 1, 0),
        ("shop", "outer", 3, 1),
        ("store", "the script", 0, 1),
    ]
    assert made.later == []
    only = build_journey("Values", {POINT}, order, tree)
    assert (only.files, only.function_lines) == (1, 0)


def test_the_longest_file_of_all_journeys_is_named_with_its_journeys(tmp_path: Path) -> None:
    tree = sources(tmp_path)
    order = recording((OUTER, 1), (REMEMBERED, 2))
    buy, sell = (
        build_journey("Buy", {OUTER}, order, tree),
        build_journey("Sell", {OUTER, REMEMBERED}, order, tree),
    )
    figures, tables = of_journeys({"embed": buy, "lease": sell})
    assert figures["embed_files"] == figures["lease_files"] == 1
    assert figures["embed_function_lines"] == 7
    assert figures["largest_file_on_path"] == len(MODULE.strip().splitlines())
    assert tables[0].rows == ((FILE, figures["largest_file_on_path"], "Buy, Sell"),)
    assert [table.title.partition(":")[0] for table in tables[1:]] == ["Buy", "Sell"]


PROGRAM = """
import sys
from penstock.shop.prices import Pair, Point, never, outer, remembered

never()
for line in sys.stdin:
    outer([1, 2]), remembered(3), Point(4), Pair(5)
    print("done", flush=True)
"""


async def test_a_recorder_notes_functions_and_constructed_classes_between_begin_and_end(
    tmp_path: Path,
) -> None:
    tree = sources(tmp_path)
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'services/shop/src')!r}); import runpy; "
        "runpy.run_path(sys.argv[1])"
    )
    with recorded_processes(sockets):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            str(tmp_path / "program.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def ask() -> bytes:
        stdin.write(b"go\n")
        return await stdout.readline()

    try:
        assert await ask() == b"done\n"
        recorded, answer = await Recorders(sockets, tree).record(ask)
    finally:
        await process.communicate(b"")
    assert answer == b"done\n"
    names = {(one.name, one.line) for one in recorded.first_ns if one.file == FILE}
    assert names == {("outer", 17), ("outer.<locals>.inner", 20), ("Point", 0), ("Pair", 0)}, (
        "a cached function is not entered again, a comprehension is part of its function"
    )
    order = sorted(
        (one.name for one in recorded.first_ns),
        key=lambda name: next(at for one, at in recorded.first_ns.items() if one.name == name),
    )
    assert order == ["outer", "outer.<locals>.inner", "Point", "Pair"]
    assert entered_in_all([recorded]) == set(recorded.first_ns)


async def test_a_process_that_has_ended_is_on_no_journey(tmp_path: Path) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    with recorded_processes(sockets):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
        await process.wait()

    async def nothing() -> None:
        return

    assert list(sockets.glob("*.sock")), "the process listened while it ran"
    recorded, _ = await Recorders(sockets, sources(tmp_path)).record(nothing)
    assert not recorded.first_ns
