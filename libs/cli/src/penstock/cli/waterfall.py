"""A trace drawn in the terminal: one row a span, its place in time as a bar, the critical path in
strong colour. Drawing only.
"""

from __future__ import annotations

from penstock.api.telemetry.v1 import telemetry_pb2
from rich.table import Table
from rich.text import Text

EIGHTHS = " ▏▎▍▌▋▊▉█"
WIDTH = 44
COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red", "white")
"""One a service, in order of appearance; the name beside the bar says the same without colour."""


def waterfall(trace: telemetry_pb2.GetTraceResponse, width: int = WIDTH) -> Table:
    """The trace as a table: service and operation, a bar on the trace's time line, milliseconds,
    share of the critical path.

    A bar is bold where the answer waited for the span and faint where nobody did; `✗` marks an
    error, `◆` where it began.
    """
    summary = trace.summary
    table = Table(
        title=_title(summary), title_justify="left", box=None, pad_edge=False, header_style="dim"
    )
    table.add_column("service · operation", no_wrap=True)
    table.add_column("time", no_wrap=True, width=width)
    table.add_column("ms", justify="right")
    table.add_column("critical", justify="right")
    if not trace.spans:
        return table
    start = min(span.start_unix_ns for span in trace.spans)
    whole = max(max(span.start_unix_ns + span.duration_ns for span in trace.spans) - start, 1)
    root_ns = max(sum(part.duration_ns for part in trace.critical_path), 1)
    services = list(dict.fromkeys(span.service for span in trace.spans))
    for span in trace.spans:
        colour = COLOURS[services.index(span.service) % len(COLOURS)]
        share = span.critical_ns / root_ns
        bar = _bar((span.start_unix_ns - start) / whole, span.duration_ns / whole, width)
        style = "dim" if not span.waited_on else colour if share < 0.005 else f"bold {colour}"
        cells = [_name(span, colour, trace.error_origin_span_id), Text(bar, style=style)]
        table.add_row(
            *cells, f"{span.duration_ns / 1e6:.2f}", f"{share:.0%}" if share >= 0.005 else "·"
        )
    return table


def _title(summary: telemetry_pb2.TraceSummary) -> Text:
    said = [
        f"trace {summary.trace_id}",
        f"{summary.duration_ms:.2f} ms",
        f"{summary.spans} spans in {len(summary.services)} services",
    ]
    if summary.paid_microusd or summary.saved_microusd:
        said.append(
            f"${summary.paid_microusd / 1e6:.6f} paid, ${summary.saved_microusd / 1e6:.6f} saved"
        )
    if summary.error:
        said.append(f"failed: {summary.error}")
    return Text(" · ".join(said), style="bold")


def _name(span: telemetry_pb2.Span, colour: str, origin: str) -> Text:
    text = Text("  " * min(span.depth, 12))
    text.append(span.service, style=colour)
    text.append(f" {span.name.rpartition('/')[2]}")
    text.append({"client": " →", "server": " ←"}.get(span.kind, ""), style="dim")
    if span.error:
        text.append(f" {'◆' if span.span_id == origin else '✗'} {span.error}", style="red")
    return text


def _bar(offset: float, share: float, width: int) -> str:
    """A bar from `offset` for `share` of the line, in eighths of a cell; never thinner than one
    eighth.
    """
    begin = min(int(offset * width), width - 1)
    eighths = max(1, round(share * width * 8))
    full, rest = divmod(eighths, 8)
    return " " * begin + ("█" * full + EIGHTHS[rest].strip())[: width - begin]
