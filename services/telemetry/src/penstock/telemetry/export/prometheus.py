"""The page `/metrics` for Prometheus and other scrapers.

Scrapers that accept OpenMetrics get exemplars too: traces that senders name, and for each histogram
of a root operation a recent one.
"""

from __future__ import annotations

import asyncio

from penstock.telemetry.export.exposition import Page, RootExemplars, render
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.series import Exemplar
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TRACES_SEARCHED = 500
"""Recent traces that exemplars are taken from."""
MIN_COMPRESSED_BYTES = 4096


def recent_exemplars(store: TelemetryStore) -> RootExemplars:
    """A recent trace for each root operation."""
    exemplars: dict[tuple[str, str], Exemplar] = {}
    for number, row in enumerate(store.window.summaries()):
        if number >= TRACES_SEARCHED:
            break
        exemplar = Exemplar(row.trace_id.hex(), row.duration_ns / 1e9, row.start_ns / 1e9)
        exemplars.setdefault((row.service, row.name), exemplar)
    return exemplars


def page_of(store: TelemetryStore, open_metrics: bool) -> Page:
    """All that the store has for a page, as it stands."""
    exemplars = recent_exemplars(store) if open_metrics else {}
    return Page(store.series.all(), store.series.writers(), exemplars, open_metrics)


def metrics_app(store: TelemetryStore) -> Starlette:
    """The application of the page."""

    async def metrics(request: Request) -> Response:
        open_metrics = "application/openmetrics-text" in request.headers.get("accept", "").lower()
        # Written in a thread, because a page of many series takes a while.
        text = await asyncio.to_thread(render, page_of(store, open_metrics))
        kind = OPEN_METRICS if open_metrics else TEXT
        return Response(text, headers={"content-type": kind})

    compression = Middleware(GZipMiddleware, minimum_size=MIN_COMPRESSED_BYTES, compresslevel=1)
    return Starlette(routes=[Route("/metrics", metrics)], middleware=[compression])
