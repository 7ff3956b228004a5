"""The blocks that views are made of: tiles, charts, tables, notes. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Tile:
    """One number with its name."""

    label: str
    value: str
    hint: str = ""
    bad: bool = False
    """Marked with a sign, because it is bad news."""


@dataclass(frozen=True)
class Tiles:
    """A row of numbers."""

    items: Sequence[Tile]


@dataclass(frozen=True)
class Chart:
    """An ECharts chart; its title says what it shows."""

    title: str
    options: Mapping[str, Any]
    height_px: int = 260


@dataclass(frozen=True)
class Cell:
    """A cell of a table: text, maybe as a link, with a bar for a share."""

    text: str
    href: str = ""
    share: float | None = None
    """0 to 1; None: no bar."""
    bad: bool = False
    """Marked with a sign, because it is bad news."""


Row = Sequence[Cell | str]


@dataclass(frozen=True)
class Rows:
    """A table; `empty` is shown when it has no row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    empty: str = "nothing yet"


@dataclass(frozen=True)
class Note:
    """A sentence."""

    text: str
    bad: bool = False


@dataclass(frozen=True)
class Form:
    """Filters; sending the form puts them into the page's address."""

    fields: Mapping[str, str] = field(default_factory=dict)
    """Text by name."""
    checkboxes: Mapping[str, bool] = field(default_factory=dict)
    """Yes or no by name; yes is `1` in the address."""


@dataclass(frozen=True)
class Bar:
    """One span of a waterfall; times are shares of the trace's duration."""

    label: str
    detail: str
    """Shown when the pointer rests on the row."""
    indent: int
    start: float
    length: float
    colour: str
    critical: Sequence[tuple[float, float]] = ()
    """(start, length) of its parts on the critical path."""
    faint: bool = False
    bad: bool = False
    cells: Sequence[str] = ()


@dataclass(frozen=True)
class Waterfall:
    """A trace on a time line."""

    title: str
    columns: Sequence[str]
    bars: Sequence[Bar]


Block = Tiles | Chart | Rows | Note | Form | Waterfall
