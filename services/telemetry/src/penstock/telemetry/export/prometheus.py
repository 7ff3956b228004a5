"""Prometheus: the last state of every series as text, OpenMetrics with exemplars where the scraper
asks for it, and a door for scrapers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from penstock.otel import attributes as names
from penstock.service.program import CannotStart
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.series import Series, labels_of

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "1": "ratio"}
REQUEST_BYTES = 16 << 10
Exemplars = dict[tuple[str, str], tuple[str, float, float]]
"""(service, span name) → (trace id, seconds, Unix time) of a recent trace."""


def prometheus_name(name: str, unit: str, kind: str) -> str:
    """The OpenTelemetry name as Prometheus writes it: dots to underscores, the unit and `_total`
    behind.
    """
    plain = re.sub(r"[^a-zA-Z0-9_:]", "_", name)
    suffix = UNITS.get(unit, "")
    if suffix and not plain.endswith(suffix):
        plain = f"{plain}_{suffix}"
    return f"{plain}_total" if kind == "sum" and not plain.endswith("_total") else plain


def _labels(series: Series, **more: str) -> str:
    said = {**labels_of(series), **more}
    pairs = [
        f'{re.sub(r"[^a-zA-Z0-9_]", "_", key)}="{_escaped(value)}"'
        for key, value in said.items()
        if value
    ]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def render(rows: list[Series], exemplars: Exemplars, open_metrics: bool) -> str:
    """All series as one page."""
    by_name: dict[str, list[Series]] = {}
    for series in rows:
        by_name.setdefault(prometheus_name(series.key.metric, series.unit, series.kind), []).append(
            series
        )
    lines: list[str] = []
    for name, members in sorted(by_name.items()):
        kind = {"sum": "counter", "gauge": "gauge", "histogram": "histogram"}[members[0].kind]
        family = name.removesuffix("_total") if open_metrics else name
        lines.append(f"# TYPE {family} {kind}")
        for series in members:
            lines += (
                _histogram(name, series, exemplars if open_metrics else {})
                if kind == "histogram"
                else [f"{name}{_labels(series)} {series.total:g}"]
            )
    if open_metrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _histogram(name: str, series: Series, exemplars: Exemplars) -> Iterator[str]:
    method = dict(series.key.labels).get(names.RPC_METHOD, "").rpartition(".")[2]
    exemplar = exemplars.get((series.key.service, method))
    seen = 0
    for index, held in enumerate(series.buckets):
        seen += held
        last = index == len(series.bounds)
        if held == 0 and not last:
            continue
        bound = "+Inf" if last else f"{series.bounds[index]:g}"
        low = series.bounds[index - 1] if index else 0.0
        mark = ""
        if exemplar and low < exemplar[1] and (last or exemplar[1] <= series.bounds[index]):
            mark = f' # {{trace_id="{exemplar[0]}"}} {exemplar[1]:g} {exemplar[2]:.3f}'
        yield f"{name}_bucket{_labels(series, le=bound)} {seen}{mark}"
    yield f"{name}_sum{_labels(series)} {series.total:g}"
    yield f"{name}_count{_labels(series)} {series.count}"


def exemplars_of(store: TelemetryStore) -> Exemplars:
    """A recent trace for each root operation."""
    found: Exemplars = {}
    for number, row in enumerate(store.window.summaries()):
        if number >= 500:
            break
        found.setdefault(
            (row.service, row.name), (row.trace_id.hex(), row.duration_ns / 1e9, row.start_ns / 1e9)
        )
    return found


class PrometheusPort:
    """A small HTTP/1.1 server with one page, `/metrics`.

    Owner: whoever started it must `stop` it.
    """

    def __init__(self, listen: str, store: TelemetryStore) -> None:
        self._store = store
        self._server: asyncio.Server | None = None
        self.address = listen

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            CannotStart: the address cannot be bound.
        """
        host, _, port = self.address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._serve, host or "127.0.0.1", int(port), limit=REQUEST_BYTES
            )
        except (OSError, ValueError):
            raise CannotStart(
                f"cannot listen on {self.address}: it is in use; set PENSTOCK_PROMETHEUS_LISTEN"
            ) from None
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5.0):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            writer.write(self._answer(head))
            await writer.drain()
        except (
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
        ):
            pass
        finally:
            writer.close()

    def _answer(self, head: str) -> bytes:
        method, _, rest = head.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method != "GET" or path != "/metrics":
            status = "405 Method Not Allowed" if method != "GET" else "404 Not Found"
            return _page(status, TEXT, "the metrics are at GET /metrics\n")
        open_metrics = "application/openmetrics-text" in head.lower()
        exemplars = exemplars_of(self._store) if open_metrics else {}
        page = render(self._store.series.all(), exemplars, open_metrics)
        return _page("200 OK", OPEN_METRICS if open_metrics else TEXT, page)

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Stop serving; a scrape that is being answered is not waited for."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


def _page(status: str, kind: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: "
        "close\r\n\r\n"
    )
    return head.encode() + body
