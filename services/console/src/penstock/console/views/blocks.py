"""What a view is made of: tiles, charts, tables, notes. Values only; page.py draws them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
"""Okabe and Ito's colours, which every kind of colour vision tells apart; where a colour means
something, a word or sign says it too.
"""

GREY = "#808080"


@dataclass(frozen=True)
class Tile:
    """One number with its name; `bad` marks it with a sign."""

    label: str
    value: str
    hint: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Tiles:
    """A strip of numbers."""

    items: Sequence[Tile]


@dataclass(frozen=True)
class Chart:
    """ECharts options with a title that says what is seen, and the numbers in words for whoever
    cannot see it.
    """

    title: str
    options: Mapping[str, Any]
    height_px: int = 260
    words: str = ""


@dataclass(frozen=True)
class Cell:
    """Text, a link, a bar of a share, and whether it is bad news."""

    text: str
    href: str = ""
    share: float | None = None
    bad: bool = False
    indent: int = 0


@dataclass(frozen=True)
class Rows:
    """A table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    empty: str = "nothing yet"


@dataclass(frozen=True)
class Note:
    """A sentence."""

    text: str
    bad: bool = False


@dataclass(frozen=True)
class Form:
    """Filters: names with their values; sending it puts them in the address."""

    fields: Mapping[str, str] = field(default_factory=dict)
    ticks: Mapping[str, bool] = field(default_factory=dict)
    """Yes or no; yes is `1` in the address."""


@dataclass(frozen=True)
class Bar:
    """One row of a waterfall: where it lies in time, and which parts of it the answer waited for;
    all as shares of the whole.
    """

    label: str
    detail: str
    indent: int
    start: float
    length: float
    colour: str
    critical: Sequence[tuple[float, float]] = ()
    faint: bool = False
    bad: bool = False
    cells: Sequence[str] = ()


@dataclass(frozen=True)
class Waterfall:
    """A trace on a line of time."""

    title: str
    columns: Sequence[str]
    bars: Sequence[Bar]


Block = Tiles | Chart | Rows | Note | Form | Waterfall


def markup(block: Block) -> str:
    """The HTML of every block but a chart; all text is escaped."""
    if isinstance(block, Tiles):
        return '<div class="tiles">' + "".join(_tile(tile) for tile in block.items) + "</div>"
    if isinstance(block, Rows):
        return _table(block)
    if isinstance(block, Waterfall):
        return _waterfall(block)
    if isinstance(block, Form):
        return _form(block)
    if isinstance(block, Note):
        kind, mark = ("bad", "▲ ") if block.bad else ("note", "")
        return f'<p class="{kind}">{mark}{html.escape(block.text)}</p>'
    raise TypeError("a chart has no markup of its own")


def _tile(tile: Tile) -> str:
    sign = "▲ " if tile.bad else ""
    kind = "tile bad" if tile.bad else "tile"
    value, label, hint = html.escape(tile.value), html.escape(tile.label), html.escape(tile.hint)
    return (
        f'<div class="{kind}"><div class="label">{label}</div><div '
        f'class="value">{sign}{value}</div><div>{hint}</div></div>'
    )


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return f"<td>{html.escape(cell)}</td>"
    text = ("▲ " if cell.bad else "") + html.escape(cell.text)
    if cell.href:
        text = f'<a href="{html.escape(cell.href, quote=True)}">{text}</a>'
    if cell.share is not None:
        text += (
            '<span class="share"><i '
            f'style="width:{max(0.0, min(1.0, cell.share)) * 100:.1f}%"></i></span>'
        )
    return (
        f'<td class="{"bad" if cell.bad else ""}" '
        f'style="padding-left:{0.5 + cell.indent}rem">{text}</td>'
    )


def _table(block: Rows) -> str:
    if not block.rows:
        return f"<h2>{html.escape(block.title)}</h2><p>{html.escape(block.empty)}</p>"
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in block.columns)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in block.rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<h2>{html.escape(block.title)}</h2>{table}"


def _waterfall(block: Waterfall) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in block.columns)
    rows = "".join(_bar(bar) for bar in block.bars)
    return (
        f'<h2>{html.escape(block.title)}</h2><table class="waterfall"><thead><tr>'
        '<th scope="col">service · operation</th><th '
        f'scope="col">time</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _bar(bar: Bar) -> str:
    critical = "".join(
        f'<b style="left:{at * 100:.2f}%;width:{max(n, 0.001) * 100:.2f}%"></b>'
        for at, n in bar.critical
    )
    place = f"left:{bar.start * 100:.2f}%;width:{max(bar.length, 0.002) * 100:.2f}%"
    style = f"{place};background:{bar.colour};opacity:{0.35 if bar.faint else 0.75}"
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in bar.cells)
    label = ("▲ " if bar.bad else "") + html.escape(bar.label)
    return (
        f'<tr title="{html.escape(bar.detail, quote=True)}"><td '
        f'style="padding-left:{0.5 + bar.indent}rem">{label}</td>'
        f'<td class="lane"><i style="{style}"></i>{critical}</td>{cells}</tr>'
    )


def _form(block: Form) -> str:
    inputs = "".join(
        f'<label>{html.escape(name)} <input name="{html.escape(name, quote=True)}" '
        f'value="{html.escape(value, quote=True)}"></label>'
        for name, value in block.fields.items()
    )
    inputs += "".join(
        f'<label><input type="checkbox" name="{html.escape(name, quote=True)}" '
        f'value="1"{" checked" if on else ""}> '
        f"{html.escape(name)}</label>"
        for name, on in block.ticks.items()
    )
    return f'<form method="get" class="filters">{inputs}<button type="submit">show</button></form>'
