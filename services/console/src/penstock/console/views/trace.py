"""One trace: a waterfall with its critical path, cost, and the attributes of its root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing.blocks import Bar, Block, Note, Row, Rows, Tile, Tiles, Waterfall
from penstock.console.drawing.charts import PALETTE
from penstock.console.drawing.format import Query
from penstock.console.service_clients import ServiceClients

SHOWN_ATTRIBUTES = ("penstock.", "gen_ai.", "rpc.response.status_code", "error.type")
"""How the names of attributes begin that are shown."""

MAX_INDENT = 12
CRITICAL_PATH_NOTE = (
    "The marks at the bars' feet are the critical path: what the answer waited for. "
    "A span cannot save more than its critical time."
)


async def trace_blocks(clients: ServiceClients, query: Query) -> Sequence[Block]:
    """The trace whose identifier stands in the query as `id`."""
    request = pb.GetTraceRequest(trace_id=query["id"])
    trace = await clients.call("telemetry", "GetTrace", request, pb.GetTraceResponse)
    if trace is None:
        return [Note(clients.failure("telemetry") or "no such trace", bad=True)]
    title = f"Trace {trace.summary.trace_id}"
    attributes: list[Row] = [
        [key, value]
        for key, value in sorted(trace.spans[0].attributes.items())
        if key.startswith(SHOWN_ATTRIBUTES)
    ]
    return [
        Tiles(_tiles(trace.summary)),
        Waterfall(title, ("ms", "critical ms", "critical"), waterfall_bars(trace)),
        Note(CRITICAL_PATH_NOTE),
        Rows("Attributes of the request", ("attribute", "value"), attributes),
    ]


def _tiles(row: pb.TraceSummary) -> list[Tile]:
    return [
        Tile("took", f"{row.duration_ms:.2f} ms", row.name),
        Tile("spans", str(row.spans), f"in {len(row.services)} services"),
        Tile("paid", f"${row.paid_microusd / 1e6:.6f}", f"${row.saved_microusd / 1e6:.6f} saved"),
        Tile("outcome", row.error or "ok", row.cache, bad=bool(row.error)),
        Tile("run", row.run_id or "—", row.step),
    ]


@dataclass(frozen=True)
class _Scale:
    """What all bars of one trace have in common."""

    start_ns: int
    length_ns: int
    root_ns: int
    colours: dict[str, str]
    """By service."""
    sections: dict[str, list[tuple[float, float]]]
    """By span identifier: (start, length) of its parts on the critical path, as shares."""


def waterfall_bars(trace: pb.GetTraceResponse) -> list[Bar]:
    """A bar for each span, with its parts on the critical path."""
    scale = _scale(trace)
    return [_bar(span, scale) for span in trace.spans]


def _scale(trace: pb.GetTraceResponse) -> _Scale:
    root = trace.spans[0]
    start_ns = min(span.start_unix_ns for span in trace.spans)
    end_ns = max(span.start_unix_ns + span.duration_ns for span in trace.spans)
    length_ns = max(end_ns - start_ns, 1)
    services = dict.fromkeys(span.service for span in trace.spans)
    sections: dict[str, list[tuple[float, float]]] = {}
    for section in trace.critical_path:
        offset_ns = root.start_unix_ns - start_ns + section.offset_ns
        part = (offset_ns / length_ns, section.duration_ns / length_ns)
        sections.setdefault(section.span_id, []).append(part)
    return _Scale(
        start_ns,
        length_ns,
        max(root.duration_ns, 1),
        {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(services)},
        sections,
    )


def _bar(span: pb.Span, scale: _Scale) -> Bar:
    label = f"{span.service} {span.name.rpartition('/')[2]}"
    return Bar(
        f"{label} {span.error}" if span.error else label,
        detail=f"{span.kind} {span.name} on {span.instance}",
        indent=min(span.depth, MAX_INDENT),
        start=(span.start_unix_ns - scale.start_ns) / scale.length_ns,
        length=span.duration_ns / scale.length_ns,
        colour=scale.colours[span.service],
        critical=scale.sections.get(span.span_id, ()),
        faint=not span.waited_on,
        bad=bool(span.error),
        cells=(
            f"{span.duration_ns / 1e6:.2f}",
            f"{span.critical_ns / 1e6:.2f}",
            f"{span.critical_ns / scale.root_ns:.0%}",
        ),
    )
