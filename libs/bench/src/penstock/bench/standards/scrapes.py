"""Hostile exports through our receiver, and a real Prometheus that scrapes the pages they make."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as otlp
from penstock.bench.standards.hostile_metrics import hostile_export
from penstock.bench.standards.prometheus import Prometheus, program, scraping
from penstock.hosting.http_port import HttpPort
from penstock.service.clock import SystemClock
from penstock.telemetry.export.exposition import render
from penstock.telemetry.export.prometheus import OPEN_METRICS, TEXT, page_of
from penstock.telemetry.ingest.exports import ExportReceiver
from penstock.telemetry.ingest.reading import read_protobuf
from penstock.telemetry.spans.redaction import ContentPolicy
from penstock.telemetry.store import TelemetryStore
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SEED = 25
WINDOW_BYTES = 16 << 20
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
CANNOT_PARSE = 1
"""Promtool's exit status for a page that it cannot parse; 3 says that it would name things
otherwise.
"""


@dataclass(frozen=True)
class Scraped:
    """What came of the pages.

    Attributes:
        pages: how many there were, in both formats.
        refused: error by page that Prometheus did not take.
        samples_lost: lines that it did not count as samples.
        unparsed: pages that promtool could not parse, of those it was given.
    """

    pages: int
    refused: Mapping[str, str]
    samples_lost: int
    unparsed: int


async def page_texts(export: otlp.ExportMetricsServiceRequest) -> tuple[str, str]:
    """The page of one export through the receiver: in the older text format, and in OpenMetrics."""
    store = TelemetryStore(SystemClock(), WINDOW_BYTES)
    receiver = ExportReceiver(store, ContentPolicy(()), None, 1)
    kind = otlp.ExportMetricsServiceRequest
    await receiver.take_metrics(read_protobuf(kind, export.SerializeToString()))
    return render(page_of(store, False)), render(page_of(store, True))


async def hostile_pages(count: int) -> dict[str, str]:
    """Pages by path, two of each generated export."""
    rng = random.Random(SEED)
    pages: dict[str, str] = {}
    for number in range(count):
        text, open_metrics = await page_texts(hostile_export(rng))
        pages[f"/text/{number}"] = text
        pages[f"/openmetrics/{number}"] = open_metrics
    return pages


async def scrape(server: Path, pages: Mapping[str, str], promtool_pages: int = 0) -> Scraped:
    """Let a Prometheus scrape these pages, and promtool parse the first ones in the text format."""
    port = HttpPort("127.0.0.1:0", _app(pages))
    await port.start()
    try:
        async with scraping(server, port.address, list(pages)) as prometheus:
            return await _scraped(prometheus, pages, promtool_pages)
    finally:
        await port.stop()


async def _scraped(
    prometheus: Prometheus, pages: Mapping[str, str], promtool_pages: int
) -> Scraped:
    scrapes = await prometheus.scrapes(len(pages))
    refused = await prometheus.why_refused()
    lost = sum(abs(_samples(pages[one.path]) - one.samples) for one in scrapes if one.up)
    texts = [text for path, text in pages.items() if path.startswith("/text/")]
    return Scraped(len(pages), refused, lost, _unparsed(texts[:promtool_pages]))


def _samples(page: str) -> int:
    return sum(not line.startswith("#") for line in page.split("\n") if line)


def _unparsed(texts: Sequence[str]) -> int:
    tool = program("promtool")
    if tool is None:
        return 0
    runs = [
        subprocess.run([tool, "check", "metrics"], input=text.encode(), check=False, **QUIET)
        for text in texts
    ]
    return sum(run.returncode == CANNOT_PARSE for run in runs)


def _app(pages: Mapping[str, str]) -> Starlette:
    bodies = {path: text.encode() for path, text in pages.items()}

    async def page(request: Request) -> Response:
        kind = TEXT if request.url.path.startswith("/text/") else OPEN_METRICS
        return Response(bodies[request.url.path], headers={"content-type": kind})

    return Starlette(routes=[Route("/{format}/{number}", page)])
