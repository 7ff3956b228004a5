"""The calls of an agent run drawn in the terminal, in 80 columns: a row for each call, with a bar
where it lies in time, and a faint one where the agent was busy itself.

The bar is bold where the run waited for the call.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.cli.output import dollars
from penstock.cli.waterfall import bar
from rich.table import Table
from rich.text import Text

WIDTH = 18
"""Characters of the time line."""
STEP_WIDTH, CALL_WIDTH = 12, 13
MIN_GAP_SHARE = 0.01
"""Shorter times of the agent's own get no row."""
CACHE = {
    "exact_hit": "exact",
    "semantic_hit": "semantic",
    "coalesced": "shared",
    "bypassed": "bypassed",
    "miss": "miss",
}
"""How the cache took part, in a word."""


def run_timeline(timeline: pb.GetRunTimelineResponse) -> Table:
    """The timeline as a table: step, operation, bar, milliseconds, share of the critical path, what
    the cache did, cost. Calls of subagents have the end of their run's id before the step.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("step", no_wrap=True, width=STEP_WIDTH)
    table.add_column("call", no_wrap=True, width=CALL_WIDTH)
    table.add_column("time", no_wrap=True, width=WIDTH)
    for name in ("ms", "path"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("cache", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    for row in _rows(timeline):
        table.add_row(*row)
    return table


def run_summary(timeline: pb.GetRunTimelineResponse) -> str:
    """The run in one line, and what is missing in another."""
    agent = timeline.agent_ns / max(1, timeline.duration_ns)
    summary = (
        f"{len(timeline.calls):,} calls in {timeline.duration_ns / 1e9:,.2f} s, {agent:.0%} of it "
        f"the agent's own · {dollars(timeline.paid_microusd)} paid, "
        f"{dollars(timeline.saved_microusd)} saved"
    )
    if timeline.omitted_traces:
        summary += f"\n{timeline.omitted_traces:,} later traces are left out; see --limit"
    return summary


def _rows(timeline: pb.GetRunTimelineResponse) -> Iterator[list[Text | str]]:
    length_ns = max(1, timeline.duration_ns)
    top = min((call.run_id for call in timeline.calls), key=len, default="")
    for call in timeline.calls:
        if call.gap_ns >= MIN_GAP_SHARE * length_ns:
            yield _gap(call, length_ns)
        yield _row(call, length_ns, top)


def _gap(call: pb.RunCall, length_ns: int) -> list[Text | str]:
    """The agent's own time before a call."""
    offset = (call.offset_ns - call.gap_ns) / length_ns
    drawn = bar(offset, call.gap_ns / length_ns, WIDTH).replace("█", "░")
    cells = ("", "(agent)", drawn, f"{call.gap_ns / 1e6:,.1f}")
    return [Text(cell, style="dim") for cell in cells]


def _row(call: pb.RunCall, length_ns: int, top: str) -> list[Text | str]:
    name = Text(call.name.rpartition("/")[2])
    if call.error:
        name.append(f" ✗ {call.error}", style="red")
    drawn = bar(call.offset_ns / length_ns, call.duration_ns / length_ns, WIDTH)
    subagent = "" if call.run_id == top else f"{call.run_id[-4:]}:"
    return [
        Text(subagent + call.step),
        name,
        Text(drawn, style="bold cyan" if call.critical_ns else "cyan"),
        f"{call.duration_ns / 1e6:,.1f}",
        f"{call.critical_ns / length_ns:.0%}" if call.critical_ns else "·",
        CACHE.get(call.cache, call.cache),
        dollars(call.paid_microusd),
    ]
