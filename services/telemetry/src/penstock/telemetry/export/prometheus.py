"""Prometheus: every series as text, and a port where scrapers get it.

Scrapers that accept OpenMetrics get exemplars too: for each histogram of a root operation, the
identifier of a recent trace.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from penstock.otel import attributes as semconv
from penstock.service.program import CannotStart
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.series import Series, series_labels

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
UNIT_SUFFIXES = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "1": "ratio"}
"""By OpenTelemetry's unit."""
TYPES = {"sum": "counter", "gauge": "gauge", "histogram": "histogram"}
"""Prometheus' type by kind of series."""
MAX_REQUEST_BYTES = 16 << 10
REQUEST_TIMEOUT_S = 5.0
TRACES_SEARCHED = 500
"""Recent traces that exemplars are taken from."""


class Exemplar(NamedTuple):
    """A trace that shows what a histogram counts."""

    trace_id: str
    value_s: float
    unix_s: float


Exemplars = Mapping[tuple[str, str], Exemplar]
"""By (service, root operation)."""


def prometheus_name(name: str, unit: str, kind: str) -> str:
    """An OpenTelemetry metric's name as Prometheus writes it.

    Dots become underscores; the unit, and `_total` for a counter, are appended.
    """
    plain = re.sub(r"[^a-zA-Z0-9_:]", "_", name)
    suffix = UNIT_SUFFIXES.get(unit, "")
    if suffix and not plain.endswith(suffix):
        plain = f"{plain}_{suffix}"
    return f"{plain}_total" if kind == "sum" and not plain.endswith("_total") else plain


def render(rows: Sequence[Series], exemplars: Exemplars, open_metrics: bool) -> str:
    """All series as one page, in OpenMetrics or in the older text format without exemplars."""
    by_name: dict[str, list[Series]] = {}
    for series in rows:
        name = prometheus_name(series.key.metric, series.unit, series.kind)
        by_name.setdefault(name, []).append(series)
    lines: list[str] = []
    for name, members in sorted(by_name.items()):
        kind = TYPES[members[0].kind]
        family = name.removesuffix("_total") if open_metrics else name
        lines.append(f"# TYPE {family} {kind}")
        for series in members:
            if kind == "histogram":
                lines += _histogram(name, series, exemplars if open_metrics else {})
            else:
                lines.append(f"{name}{_labels(series)} {series.total:g}")
    if open_metrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _histogram(name: str, series: Series, exemplars: Exemplars) -> Iterator[str]:
    """The lines of one histogram; empty buckets but the last are left out."""
    method = dict(series.key.labels).get(semconv.RPC_METHOD, "").rpartition(".")[2]
    exemplar = exemplars.get((series.key.service, method))
    cumulative = 0
    low = 0.0
    for index, count in enumerate(series.buckets):
        cumulative += count
        is_last = index == len(series.bounds)
        high = float("inf") if is_last else series.bounds[index]
        if count or is_last:
            bound = "+Inf" if is_last else f"{high:g}"
            mark = ""
            if exemplar is not None and low < exemplar.value_s <= high:
                mark = _exemplar_text(exemplar)
            yield f"{name}_bucket{_labels(series, le=bound)} {cumulative}{mark}"
        low = high
    yield f"{name}_sum{_labels(series)} {series.total:g}"
    yield f"{name}_count{_labels(series)} {series.count}"


def _exemplar_text(exemplar: Exemplar) -> str:
    labels = f'{{trace_id="{exemplar.trace_id}"}}'
    return f" # {labels} {exemplar.value_s:g} {exemplar.unix_s:.3f}"


def _labels(series: Series, **more: str) -> str:
    labels = {**series_labels(series), **more}
    pairs = [
        f'{re.sub(r"[^a-zA-Z0-9_]", "_", key)}="{_escape(value)}"'
        for key, value in labels.items()
        if value
    ]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def recent_exemplars(store: TelemetryStore) -> Exemplars:
    """A recent trace for each root operation."""
    exemplars: dict[tuple[str, str], Exemplar] = {}
    for number, row in enumerate(store.window.summaries()):
        if number >= TRACES_SEARCHED:
            break
        exemplar = Exemplar(row.trace_id.hex(), row.duration_ns / 1e9, row.start_ns / 1e9)
        exemplars.setdefault((row.service, row.name), exemplar)
    return exemplars


class PrometheusPort:
    """A small HTTP/1.1 server with one page, `/metrics`. Owner: whoever started it must `stop` it.

    Args:
        listen: `host:port`.
        store: whose series are shown.
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
                self._serve, host or "127.0.0.1", int(port), limit=MAX_REQUEST_BYTES
            )
        except (OSError, ValueError):
            raise CannotStart(
                f"cannot listen on {self.address}: it is in use; set PENSTOCK_PROMETHEUS_LISTEN"
            ) from None
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            writer.write(self._respond(head))
            await writer.drain()
        except (
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
        ):
            pass  # a client that sends no request gets no response
        finally:
            writer.close()

    def _respond(self, head: str) -> bytes:
        """The response to a request, given its first line and headers."""
        method, _, rest = head.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method != "GET":
            return _response("405 Method Not Allowed", TEXT, "the metrics are at GET /metrics\n")
        if path != "/metrics":
            return _response("404 Not Found", TEXT, "the metrics are at GET /metrics\n")
        open_metrics = "application/openmetrics-text" in head.lower()
        exemplars = recent_exemplars(self._store) if open_metrics else {}
        page = render(self._store.series.all(), exemplars, open_metrics)
        return _response("200 OK", OPEN_METRICS if open_metrics else TEXT, page)

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Stop serving at once; a scrape in progress is not waited for."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


def _response(status: str, content_type: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
