"""One trace: its waterfall with the critical path, cost, and what each span at most could save.

Asks and gives blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.service_clients import ServiceClients
from penstock.console.views.blocks import PALETTE, Bar, Block, Note, Rows, Tile, Tiles, Waterfall

SHOWN = ("penstock.", "gen_ai.", "rpc.status_code", "error.type")


async def trace_blocks(clients: ServiceClients, query: Mapping[str, str]) -> Sequence[Block]:
    """The blocks of the trace whose identifier stands in the address."""
    found = await clients.ask(
        "telemetry", "GetTrace", pb.GetTraceRequest(trace_id=query["id"]), pb.GetTraceResponse
    )
    if found is None:
        return [Note(clients.failures.get("telemetry", "no such trace"), bad=True)]
    row = found.summary
    tiles = [
        Tile("took", f"{row.duration_ms:.2f} ms", row.name),
        Tile("spans", str(row.spans), f"in {len(row.services)} services"),
        Tile("paid", f"${row.paid_microusd / 1e6:.6f}", f"${row.saved_microusd / 1e6:.6f} saved"),
        Tile("outcome", row.error or "ok", row.cache, bad=bool(row.error)),
        Tile("run", row.run_id or "—", row.step),
    ]
    root = found.spans[0]
    said = [[key, value] for key, value in sorted(root.attributes.items()) if key.startswith(SHOWN)]
    return [
        Tiles(tiles),
        Waterfall(f"Trace {row.trace_id}", ("ms", "critical ms", "critical"), bars(found)),
        Note(
            "The marks at the bars' feet are the critical path: what the answer waited for. "
            "A span cannot save more than its critical time."
        ),
        Rows("What the request said", ("attribute", "value"), said),
    ]


def bars(trace: pb.GetTraceResponse) -> list[Bar]:
    """A bar a span, with its sections of the critical path."""
    start = min(span.start_unix_ns for span in trace.spans)
    whole = max(max(span.start_unix_ns + span.duration_ns for span in trace.spans) - start, 1)
    root_start = trace.spans[0].start_unix_ns
    root_ns = max(trace.spans[0].duration_ns, 1)
    services = list(dict.fromkeys(span.service for span in trace.spans))
    sections: dict[str, list[tuple[float, float]]] = {}
    for part in trace.critical_path:
        place = (root_start - start + part.offset_ns) / whole, part.duration_ns / whole
        sections.setdefault(part.span_id, []).append(place)
    return [
        Bar(
            f"{span.service} {span.name.rpartition('/')[2]}"
            + (f" {span.error}" if span.error else ""),
            f"{span.kind} {span.name} on {span.instance}",
            min(span.depth, 12),
            (span.start_unix_ns - start) / whole,
            span.duration_ns / whole,
            PALETTE[services.index(span.service) % len(PALETTE)],
            sections.get(span.span_id, ()),
            faint=not span.waited_on,
            bad=bool(span.error),
            cells=(
                f"{span.duration_ns / 1e6:.2f}",
                f"{span.critical_ns / 1e6:.2f}",
                f"{span.critical_ns / root_ns:.0%}",
            ),
        )
        for span in trace.spans
    ]
