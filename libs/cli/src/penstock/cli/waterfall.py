"""A trace drawn in the terminal: a row for each span, with a bar where it lies in time.

The bar is bold where the span is on the critical path.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.telemetry.v1 import telemetry_pb2
from rich.table import Table
from rich.text import Text

EIGHTHS = " ▏▎▍▌▋▊▉█"
WIDTH = 44
MAX_INDENT = 12
MIN_CRITICAL_SHARE = 0.005
"""A span with a smaller share of the critical path is drawn as if it had none."""

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red", "white")
"""One for each service, in order of appearance; its name beside the bar needs no colour."""


@dataclass(frozen=True)
class _Scale:
    """What all rows of one trace have in common."""

    start_ns: int
    length_ns: int
    critical_path_ns: int
    colours: dict[str, str]
    """By service."""
    error_origin: str
    """Identifier of the span where the trace's error began; empty when it did not fail."""
    width: int


def waterfall(trace: telemetry_pb2.GetTraceResponse, width: int = WIDTH) -> Table:
    """The trace as a table: service and operation, a bar on the trace's time line, milliseconds,
    share of the critical path.

    A bar is bold on the critical path, and faint where nobody waited for the span; `✗` marks an
    error, `◆` the error that the others follow from. `width` is the length of the time line in
    characters.
    """
    table = Table(
        title=_title(trace.summary),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("service · operation", no_wrap=True)
    table.add_column("time", no_wrap=True, width=width)
    table.add_column("ms", justify="right")
    table.add_column("critical", justify="right")
    if trace.spans:
        scale = _scale(trace, width)
        for span in trace.spans:
            table.add_row(*_row(span, scale))
    return table


def _scale(trace: telemetry_pb2.GetTraceResponse, width: int) -> _Scale:
    start_ns = min(span.start_unix_ns for span in trace.spans)
    end_ns = max(span.start_unix_ns + span.duration_ns for span in trace.spans)
    critical_path_ns = sum(section.duration_ns for section in trace.critical_path)
    services = dict.fromkeys(span.service for span in trace.spans)
    return _Scale(
        start_ns,
        max(end_ns - start_ns, 1),
        max(critical_path_ns, 1),
        {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(services)},
        trace.error_origin_span_id,
        width,
    )


def _row(span: telemetry_pb2.Span, scale: _Scale) -> list[Text | str]:
    share = span.critical_ns / scale.critical_path_ns
    is_critical = share >= MIN_CRITICAL_SHARE
    offset = (span.start_unix_ns - scale.start_ns) / scale.length_ns
    drawn = bar(offset, span.duration_ns / scale.length_ns, scale.width)
    return [
        _name(span, scale),
        Text(drawn, style=_bar_style(span, scale.colours[span.service], is_critical)),
        f"{span.duration_ns / 1e6:.2f}",
        f"{share:.0%}" if is_critical else "·",
    ]


def _bar_style(span: telemetry_pb2.Span, colour: str, is_critical: bool) -> str:
    if not span.waited_on:
        return "dim"
    return f"bold {colour}" if is_critical else colour


def _title(summary: telemetry_pb2.TraceSummary) -> Text:
    parts = [
        f"trace {summary.trace_id}",
        f"{summary.duration_ms:.2f} ms",
        f"{summary.spans} spans in {len(summary.services)} services",
    ]
    if summary.paid_microusd or summary.saved_microusd:
        paid = f"${summary.paid_microusd / 1e6:.6f} paid"
        parts.append(f"{paid}, ${summary.saved_microusd / 1e6:.6f} saved")
    if summary.error:
        parts.append(f"failed: {summary.error}")
    return Text(" · ".join(parts), style="bold")


def _name(span: telemetry_pb2.Span, scale: _Scale) -> Text:
    text = Text("  " * min(span.depth, MAX_INDENT))
    text.append(span.service, style=scale.colours[span.service])
    text.append(f" {span.name.rpartition('/')[2]}")
    text.append({"client": " →", "server": " ←"}.get(span.kind, ""), style="dim")
    if span.error:
        mark = "◆" if span.span_id == scale.error_origin else "✗"
        text.append(f" {mark} {span.error}", style="red")
    return text


def bar(offset: float, share: float, width: int) -> str:
    """A bar that begins at `offset` and is `share` long, both as shares of the line; never shorter
    than an eighth of a character.
    """
    begin = min(int(offset * width), width - 1)
    full, rest = divmod(max(1, round(share * width * 8)), 8)
    drawn = "█" * full + EIGHTHS[rest].strip()
    return " " * begin + drawn[: width - begin]
