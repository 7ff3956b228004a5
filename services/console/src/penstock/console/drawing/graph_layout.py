"""Where the nodes, lines and labels of a graph of calls stand, so that every label can be read.

Layered drawing (Sugiyama, Tagawa and Toda 1981): a node stands one column to the right of its
rightmost caller; a line over several columns passes through a free row of each; rows are ordered by
the mean row of what they come from. A label stands upright on its line, at the first place where it
covers neither a node nor another label.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

COLUMN_PX, ROW_PX = 250, 96
"""Between the centres of columns, and of rows."""
NODE_PX = 40
CHARACTER_PX, LINE_PX = 6.8, 16
"""About what a character of a label takes, and its height."""
SHIFT_PX = LINE_PX + 2
"""How far from its line a label stands where the line has no free place."""
SWEEPS = 4
PLACES = (0.5, *(0.5 + side * step / 20 for step in range(1, 7) for side in (-1, 1)))
"""Where on a line a label may stand, the best first, as shares of its length."""

Pair = tuple[str, str]


class Place(NamedTuple):
    """A point in pixels, y downwards."""

    x: float
    y: float


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share a point."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True)
class Layout:
    """A drawn graph.

    Attributes:
        nodes: centre by name.
        lines: by edge the points that it passes, from the caller to the callee.
        labels: by edge the centre of its label.
        rows: of the column that has most.
    """

    nodes: Mapping[str, Place]
    lines: Mapping[Pair, Sequence[Place]]
    labels: Mapping[Pair, Place]
    rows: int


def text_box(centre: Place, text: str) -> Box:
    """About the rectangle of a label."""
    half = len(text) * CHARACTER_PX / 2
    return Box(centre.x - half, centre.y - LINE_PX / 2, centre.x + half, centre.y + LINE_PX / 2)


def node_box(centre: Place, name: str) -> Box:
    """About the rectangle of a node and its name, which stands below it."""
    half = max(NODE_PX, len(name) * CHARACTER_PX) / 2
    top = centre.y - NODE_PX / 2
    return Box(centre.x - half, top, centre.x + half, centre.y + NODE_PX / 2 + LINE_PX + 6)


def lay_out(labels: Mapping[Pair, str]) -> Layout:
    """The layout of the edges with these labels."""
    columns = _columns(labels)
    chains = {pair: _chain(pair, columns) for pair in labels if pair[0] != pair[1]}
    rows = _rows(columns, chains.values())
    places = {point: _place(point, rows) for column in rows for point in column}
    nodes = {name: places[name, column] for name, column in columns.items()}
    lines = {pair: [places[point] for point in chain] for pair, chain in chains.items()}
    return Layout(nodes, lines, _label_places(labels, lines, nodes), max(map(len, rows), default=1))


Point = tuple[str, int]
"""A node or a bend of a line, and its column."""


def _columns(pairs: Iterable[Pair]) -> dict[str, int]:
    """The column of each node: one to the right of its rightmost caller.

    Nodes that call each other in a circle keep the columns in which they were met.
    """
    callers: dict[str, set[str]] = {}
    for client, server in pairs:
        callers.setdefault(client, set())
        callers.setdefault(server, set()).add(client)
    columns: dict[str, int] = {}

    def column_of(name: str, above: tuple[str, ...]) -> int:
        if name not in columns:
            before = [
                column_of(caller, (*above, name))
                for caller in sorted(callers[name])
                if caller != name and caller not in above
            ]
            columns[name] = max(before, default=-1) + 1
        return columns[name]

    for name in sorted(callers):
        column_of(name, ())
    return columns


def _chain(pair: Pair, columns: Mapping[str, int]) -> list[Point]:
    """The points of a line: its ends, and a bend in each column between them."""
    client, server = pair
    first, last = columns[client], columns[server]
    step = 1 if last > first else -1
    bends = [(f"{client}\0{server}", column) for column in range(first + step, last, step)]
    return [(client, first), *bends, (server, last)]


def _rows(columns: Mapping[str, int], chains: Iterable[Sequence[Point]]) -> list[list[Point]]:
    """The points of each column from the top, ordered so that few lines cross."""
    chains = list(chains)
    points = dict.fromkeys([*columns.items(), *(point for chain in chains for point in chain)])
    rows: list[list[Point]] = [[] for _ in range(max(columns.values(), default=0) + 1)]
    for point in sorted(points):
        rows[point[1]].append(point)
    beside: dict[Point, list[Point]] = {point: [] for point in points}
    for chain in chains:
        for left, right in itertools.pairwise(chain):
            beside[left].append(right)
            beside[right].append(left)
    for sweep in range(SWEEPS):
        order = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        side = -1 if sweep % 2 == 0 else 1
        for column in order:
            _sort_column(rows, column, column + side, beside)
    return rows


def _sort_column(
    rows: list[list[Point]], column: int, reference: int, beside: Mapping[Point, Sequence[Point]]
) -> None:
    """Order a column by the mean row of its neighbours in the reference column."""
    place = {point: row for row, point in enumerate(rows[reference])}
    middle = (len(rows[reference]) - 1) / 2

    def mean_row(point: Point) -> tuple[float, Point]:
        found = [place[other] for other in beside[point] if other in place]
        return (sum(found) / len(found) if found else middle, point)

    rows[column].sort(key=mean_row)


def _place(point: Point, rows: Sequence[Sequence[Point]]) -> Place:
    members = rows[point[1]]
    row = members.index(point) - (len(members) - 1) / 2
    return Place(point[1] * COLUMN_PX, row * ROW_PX)


def _label_places(
    labels: Mapping[Pair, str],
    lines: Mapping[Pair, Sequence[Place]],
    nodes: Mapping[str, Place],
) -> dict[Pair, Place]:
    taken = [node_box(place, name) for name, place in nodes.items()]
    found: dict[Pair, Place] = {}
    for pair, line in lines.items():
        places = list(_candidates(line))
        free = (
            place
            for place in places
            if not any(text_box(place, labels[pair]).overlaps(box) for box in taken)
        )
        found[pair] = next(free, places[0])
        taken.append(text_box(found[pair], labels[pair]))
    return found


def _candidates(line: Sequence[Place]) -> Iterator[Place]:
    """Where a label may stand, the best first: on its line, then just above and below it."""
    for shift in (0.0, -SHIFT_PX, SHIFT_PX):
        for first, second in _segments(line):
            for share in PLACES:
                place = _along(first, second, share)
                yield Place(place.x, place.y + shift)


def _segments(line: Sequence[Place]) -> list[tuple[Place, Place]]:
    return list(itertools.pairwise(line))


def _along(first: Place, second: Place, share: float) -> Place:
    return Place(first.x + share * (second.x - first.x), first.y + share * (second.y - first.y))
