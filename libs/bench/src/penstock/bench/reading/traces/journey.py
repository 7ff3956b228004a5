"""What one request opens, from recordings of it: which functions, files and lines.

A recording holds what every process entered in one window. A function is on a journey when it was
entered in every repeat before the answer was back at the caller (`entered_in_all`), which leaves
out what a background loop does now and then; what runs in every idle window of the same length is
left out too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.bench.reading.sources.tree import Source, SourceTree


@dataclass(frozen=True, slots=True)
class Entered:
    """A function that was entered in a program, or (line 0) a class that was constructed.

    `file` is the path below the repository's root; a script that a store ran has line 0 too.
    """

    program: str
    file: str
    name: str
    line: int

    @property
    def place(self) -> tuple[str, str, int]:
        """The same in every program."""
        return self.file, self.name, self.line


@dataclass(frozen=True)
class Recording:
    """When each function was first entered in one window; `answered_ns`: when the answer arrived.

    Nanoseconds are those of the machine's monotonic clock, the same in every process.
    """

    first_ns: Mapping[Entered, int]
    answered_ns: int
    seconds: float = 0.0
    """From the call until the caller had its answer."""


@dataclass(frozen=True)
class OpenedFile:
    """One file as one program opened it. `lines` are those of the functions, each once."""

    program: str
    file: str
    enters_at: str
    functions: int
    classes: int
    lines: int
    file_lines: int


@dataclass(frozen=True)
class Journey:
    """The files that a reader opens to follow one request, in order.

    `later` are paths of files that are entered only after the answer.
    """

    title: str
    opened: Sequence[OpenedFile]
    files: int
    function_lines: int
    later: Sequence[str] = ()


def entered_in_all(recordings: Sequence[Recording], *, answered: bool = True) -> frozenset[Entered]:
    """What was entered in every recording; with `answered`, only what was before the answer."""
    sets = [
        {one for one, at in row.first_ns.items() if not answered or at <= row.answered_ns}
        for row in recordings
    ]
    return frozenset(set[Entered].intersection(*sets)) if sets else frozenset()


def entered_in_any(recordings: Iterable[Recording]) -> frozenset[Entered]:
    """What was entered in any recording."""
    return frozenset(one for row in recordings for one in row.first_ns)


def without_read(entered: Iterable[Entered], read: Collection[Entered]) -> frozenset[Entered]:
    """What is entered and not among `read`; a place that was read in any program counts as read."""
    known = {one.place for one in read}
    return frozenset(one for one in entered if one.place not in known)


def build_journey(
    title: str,
    entered: Collection[Entered],
    order: Recording,
    tree: SourceTree,
    later: Collection[Entered] = (),
) -> Journey:
    """The journey through what was entered, in the order of one recording."""
    by_file: dict[tuple[str, str], list[Entered]] = {}
    for one in sorted(entered, key=lambda one: order.first_ns[one]):
        by_file.setdefault((one.program, one.file), []).append(one)
    opened = [_opened(program, tree[file], rows) for (program, file), rows in by_file.items()]
    files = {row.file for row in opened}
    lines = sum(
        len(_lines(tree[file], [one for one in entered if one.file == file])) for file in files
    )
    return Journey(title, opened, len(files), lines, sorted({one.file for one in later} - files))


def _opened(program: str, source: Source, rows: Sequence[Entered]) -> OpenedFile:
    functions = [one for one in rows if one.line]
    classes = [one for one in rows if not one.line]
    first = (functions or classes or rows)[0]
    lines = len(_lines(source, rows))
    return OpenedFile(
        program, source.path, first.name, len(functions), len(classes), lines, source.lines
    )


def _lines(source: Source, rows: Iterable[Entered]) -> set[int]:
    """Lines of the functions entered in a file, each once."""
    if not source.path.endswith(".py"):
        return set()
    spans = source.spans
    return {
        line for one in rows if one.line in spans for line in range(one.line, spans[one.line] + 1)
    }
