"""The page: frame, keys, theme, and blocks as elements that refresh in place.

NiceGUI lives here and nowhere else.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from nicegui import ui
from nicegui.events import KeyEventArguments
from penstock.console.service_clients import ServiceClients
from penstock.console.views.blocks import Block, Chart, markup
from penstock.console.views.format import Query, link
from penstock.console.views.views import VIEWS, View
from starlette.requests import Request

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


class BlockRenderer:
    """The blocks of a view as elements.

    New blocks of the same kinds change the elements; others replace them.
    """

    def __init__(self) -> None:
        self._box = ui.column().classes("w-full gap-2").props("role=main id=main")
        self._shape: tuple[tuple[str, str], ...] = ()
        self._elements: list[ui.html | ui.echart] = []

    def draw(self, blocks: Sequence[Block]) -> None:
        shape = tuple(
            (type(block).__name__, block.title if isinstance(block, Chart) else "")
            for block in blocks
        )
        if shape != self._shape:
            self._shape = shape
            self._box.clear()
            with self._box:
                self._elements = [self._make(block) for block in blocks]
            return
        for block, element in zip(blocks, self._elements, strict=True):
            self._change(block, element)

    @staticmethod
    def _make(block: Block) -> ui.html | ui.echart:
        if not isinstance(block, Chart):
            return ui.html(markup(block), sanitize=False).classes("w-full")
        ui.html(f"<h2>{html.escape(block.title)}</h2>", sanitize=False)
        chart = (
            ui.echart(dict(block.options)).classes("w-full").style(f"height:{block.height_px}px")
        )
        return chart.props(f'role=img aria-label="{html.escape(block.title, quote=True)}"')

    @staticmethod
    def _change(block: Block, element: ui.html | ui.echart) -> None:
        if isinstance(element, ui.echart) and isinstance(block, Chart):
            element.options.clear()
            element.options.update(block.options)
            element.update()
        elif isinstance(element, ui.html) and element.content != (text := markup(block)):
            element.set_content(text)


def frame(view: View, query: Query) -> None:
    """Navigation, title and keys of a page."""
    theme = query.get("theme", "")
    ui.dark_mode({"dark": True, "light": False}.get(theme))
    ui.add_css(STYLE)
    links = "".join(
        f'<a href="{html.escape(link(other.path, query), quote=True)}"'
        f"{' aria-current=page' if other is view else ''}>"
        f"{other.name} <kbd>{other.key}</kbd></a>"
        for other in VIEWS
    )
    turned = {**query, "theme": "light" if theme == "dark" else "dark"}
    flip = html.escape(
        link(
            view.path,
            {"theme": turned["theme"]},
            **{k: v for k, v in query.items() if k != "theme"},
        ),
        quote=True,
    )
    ui.html(
        f'<nav class="bar" aria-label="views"><strong>penstock</strong>{links}<a '
        f'href="{flip}">{turned["theme"]} <kbd>t</kbd></a></nav>'
        f"<h1>{html.escape(view.name)} — {html.escape(view.question)}</h1>",
        sanitize=False,
    ).classes("w-full")
    ui.keyboard(lambda event: _on_key(event, query, flip))


def _on_key(event: KeyEventArguments, query: Query, flip: str) -> None:
    if (
        not event.action.keydown
        or event.modifiers.ctrl
        or event.modifiers.alt
        or event.modifiers.meta
    ):
        return
    if str(event.key) == "t":
        ui.navigate.to(html.unescape(flip))
    for view in VIEWS:
        if str(event.key) == view.key:
            ui.navigate.to(link(view.path, query))


def add_pages(clients: ServiceClients, refresh_s: float) -> None:
    """Register every view at its path."""
    for view in VIEWS:
        _add(view, clients, refresh_s)


def _add(view: View, clients: ServiceClients, refresh_s: float) -> None:
    async def show(request: Request) -> None:
        query = {key: value for key, value in request.query_params.items() if key != "token"}
        frame(view, query)
        drawn = BlockRenderer()
        drawn.draw(await view.show(clients, query))
        if query.get("pause") == "1" or query.get("id"):
            return

        async def refresh() -> None:
            drawn.draw(await view.show(clients, query))

        ui.timer(refresh_s, refresh, immediate=False)

    ui.page(view.path, title=f"{view.name} · Penstock", response_timeout=10.0)(show)
