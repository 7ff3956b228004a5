"""The pages: frame, keys and theme, and blocks as elements that refresh in place.

NiceGUI is used here only.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from fastapi import FastAPI
from nicegui import ui
from nicegui.events import KeyEventArguments
from penstock.console.drawing.blocks import Block, Chart
from penstock.console.drawing.format import Query, link
from penstock.console.drawing.markup import chart_heading, markup
from penstock.console.service_clients import ServiceClients
from penstock.console.views.views import VIEWS, View
from starlette.requests import Request

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
THEME_KEY = "t"
RESPONSE_TIMEOUT_S = 10.0
Element = ui.html | ui.echart


class BlockRenderer:
    """The blocks of a view as elements of a page.

    Blocks of the same kinds as before change the elements in place; others replace them.
    """

    def __init__(self) -> None:
        self._column = ui.column().classes("w-full gap-2").props("role=main id=main")
        self._kinds: list[tuple[str, str]] = []
        self._elements: list[Element] = []

    def show(self, blocks: Sequence[Block]) -> None:
        """Show these blocks."""
        kinds = [_kind(block) for block in blocks]
        if kinds == self._kinds:
            for block, element in zip(blocks, self._elements, strict=True):
                _update(element, block)
            return
        self._kinds = kinds
        self._column.clear()
        with self._column:
            self._elements = [_make(block) for block in blocks]


def _kind(block: Block) -> tuple[str, str]:
    """What must be equal for an element to be updated: the type, and a chart's title."""
    return type(block).__name__, block.title if isinstance(block, Chart) else ""


def _make(block: Block) -> Element:
    if not isinstance(block, Chart):
        return ui.html(markup(block), sanitize=False).classes("w-full")
    ui.html(chart_heading(block), sanitize=False)
    chart = ui.echart(dict(block.options)).classes("w-full")
    chart.style(f"height:{block.height_px}px")
    return chart.props(f'role=img aria-label="{escape(block.title)}"')


def _update(element: Element, block: Block) -> None:
    if isinstance(element, ui.echart) and isinstance(block, Chart):
        element.options.clear()
        element.options.update(block.options)
        element.update()
    elif isinstance(element, ui.html) and not isinstance(block, Chart):
        text = markup(block)
        if element.content != text:
            element.set_content(text)


def app_of(clients: ServiceClients, refresh_s: float) -> FastAPI:
    """The application with every view at its path."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for view in VIEWS:
        _add_page(view, clients, refresh_s)
    ui.run_with(app, title="Penstock", dark=None, show_welcome_message=False)
    return app


def _add_page(view: View, clients: ServiceClients, refresh_s: float) -> None:
    async def page(request: Request) -> None:
        query = {key: value for key, value in request.query_params.items() if key != "token"}
        _add_frame(view, query)
        renderer = BlockRenderer()

        async def refresh() -> None:
            renderer.show(await view.show(clients, query))

        await refresh()
        is_still = query.get("pause") == "1" or bool(query.get("id"))
        if not is_still:
            ui.timer(refresh_s, refresh, immediate=False)

    title = f"{view.name} · Penstock"
    ui.page(view.path, title=title, response_timeout=RESPONSE_TIMEOUT_S)(page)


def _add_frame(view: View, query: Query) -> None:
    """Navigation, title and keys of a page."""
    theme = query.get("theme", "")
    other_theme = "light" if theme == "dark" else "dark"
    theme_link = link(view.path, {}, **{**query, "theme": other_theme})
    ui.dark_mode({"dark": True, "light": False}.get(theme))
    ui.add_css(STYLE)
    links = "".join(_navigation_link(other, view, query) for other in VIEWS)
    theme_anchor = f'<a href="{escape(theme_link)}">{other_theme} <kbd>{THEME_KEY}</kbd></a>'
    ui.html(
        f'<nav class="bar" aria-label="views"><strong>penstock</strong>{links}{theme_anchor}</nav>'
        f"<h1>{escape(view.name)} — {escape(view.question)}</h1>",
        sanitize=False,
    ).classes("w-full")
    ui.keyboard(lambda event: _on_key(event, query, theme_link))


def _navigation_link(view: View, current: View, query: Query) -> str:
    mark = " aria-current=page" if view is current else ""
    href = escape(link(view.path, query))
    return f'<a href="{href}"{mark}>{view.name} <kbd>{view.key}</kbd></a>'


def _on_key(event: KeyEventArguments, query: Query, theme_link: str) -> None:
    modifiers = event.modifiers
    if not event.action.keydown or modifiers.ctrl or modifiers.alt or modifiers.meta:
        return
    key = str(event.key)
    if key == THEME_KEY:
        ui.navigate.to(theme_link)
    for view in VIEWS:
        if key == view.key:
            ui.navigate.to(link(view.path, query))
