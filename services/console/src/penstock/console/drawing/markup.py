"""Blocks as HTML. All text is escaped, so that nothing a tenant wrote becomes markup."""

from __future__ import annotations

from html import escape

from penstock.console.drawing.blocks import (
    Bar,
    Cell,
    Chart,
    Form,
    Note,
    Rows,
    Tile,
    Tiles,
    Waterfall,
)

BAD_SIGN = "▲ "
"""Says without colour that something is bad."""


def markup(block: Tiles | Rows | Note | Form | Waterfall) -> str:
    """The HTML of any block but a chart, which ECharts draws."""
    match block:
        case Tiles():
            return '<div class="tiles">' + "".join(_tile(tile) for tile in block.items) + "</div>"
        case Rows():
            return _table(block)
        case Waterfall():
            return _waterfall(block)
        case Form():
            return _form(block)
        case Note():
            kind = "bad" if block.bad else "note"
            return f'<p class="{kind}">{_sign(block.bad)}{escape(block.text)}</p>'


def chart_heading(chart: Chart) -> str:
    """The heading above a chart."""
    return _heading(chart.title)


def _sign(bad: bool) -> str:
    return BAD_SIGN if bad else ""


def _heading(title: str) -> str:
    return f"<h2>{escape(title)}</h2>"


def _column_heads(names: tuple[str, ...]) -> str:
    return "".join(f'<th scope="col">{escape(name)}</th>' for name in names)


def _tile(tile: Tile) -> str:
    kind = "tile bad" if tile.bad else "tile"
    label = f'<div class="label">{escape(tile.label)}</div>'
    value = f'<div class="value">{_sign(tile.bad)}{escape(tile.value)}</div>'
    return f'<div class="{kind}">{label}{value}<div>{escape(tile.hint)}</div></div>'


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    content = _sign(cell.bad) + escape(cell.text)
    if cell.href:
        content = f'<a href="{escape(cell.href)}">{content}</a>'
    if cell.share is not None:
        percent = max(0.0, min(1.0, cell.share)) * 100
        content += f'<span class="share"><i style="width:{percent:.1f}%"></i></span>'
    return f'<td class="{"bad" if cell.bad else ""}">{content}</td>'


def _table(block: Rows) -> str:
    if not block.rows:
        return f"{_heading(block.title)}<p>{escape(block.empty)}</p>"
    head = _column_heads(tuple(block.columns))
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in block.rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return _heading(block.title) + table


def _waterfall(block: Waterfall) -> str:
    head = _column_heads(("service · operation", "time", *block.columns))
    body = "".join(_bar(bar) for bar in block.bars)
    return (
        f'{_heading(block.title)}<table class="waterfall"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _bar(bar: Bar) -> str:
    place = f"left:{bar.start * 100:.2f}%;width:{max(bar.length, 0.002) * 100:.2f}%"
    style = f"{place};background:{bar.colour};opacity:{0.35 if bar.faint else 0.75}"
    critical = "".join(
        f'<b style="left:{start * 100:.2f}%;width:{max(length, 0.001) * 100:.2f}%"></b>'
        for start, length in bar.critical
    )
    label = _sign(bar.bad) + escape(bar.label)
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in bar.cells)
    return (
        f'<tr title="{escape(bar.detail)}">'
        f'<td style="padding-left:{0.5 + bar.indent}rem">{label}</td>'
        f'<td class="lane"><i style="{style}"></i>{critical}</td>{cells}</tr>'
    )


def _form(block: Form) -> str:
    inputs = [
        f'<label>{escape(name)} <input name="{escape(name)}" value="{escape(value)}"></label>'
        for name, value in block.fields.items()
    ]
    inputs += [
        f'<label><input type="checkbox" name="{escape(name)}" value="1"'
        f"{' checked' if is_checked else ''}> {escape(name)}</label>"
        for name, is_checked in block.checkboxes.items()
    ]
    button = '<button type="submit">show</button>'
    return f'<form method="get" class="filters">{"".join(inputs)}{button}</form>'
