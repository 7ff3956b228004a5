"""What views share: money and addresses as text, a service that is away, charts of whatever metrics
there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.sources import Sources
from penstock.console.views import charts
from penstock.console.views.blocks import Block, Cell, Chart, Note

Query = Mapping[str, str]
Row = list[Cell | str]


def dollars(microusd: int) -> str:
    return f"${microusd / 1e6:,.6f}" if abs(microusd) < 10_000_000 else f"${microusd / 1e6:,.2f}"


def link(path: str, query: Query, **changes: str) -> str:
    """An address that keeps the theme and changes the rest."""
    kept = {key: value for key, value in query.items() if key == "theme"}
    said = {**kept, **{key: value for key, value in changes.items() if value}}
    return f"{path}?{urlencode(said)}" if said else path


def away(sources: Sources, service: str) -> list[Block]:
    """What is shown where a service gives no answer."""
    return [
        Note(
            f"{service} gives no answer: {sources.refused.get(service, 'not asked yet')}", bad=True
        )
    ]


async def metric_charts(sources: Sources, prefix: str, title: str) -> list[Block]:
    """A chart of every metric whose name begins so."""
    names = await sources.ask(
        "telemetry", "GetMetrics", pb.GetMetricsRequest(), pb.GetMetricsResponse
    )
    blocks: list[Block] = []
    for name in names.names if names else ():
        if not name.startswith(prefix):
            continue
        found = await sources.ask(
            "telemetry", "GetMetrics", pb.GetMetricsRequest(name=name), pb.GetMetricsResponse
        )
        lines = {
            series_name(series): [(float(p.unix_ms), p.value) for p in series.points]
            for series in (found.series if found else ())[:12]
        }
        unit = found.series[0].unit if found and found.series else ""
        blocks.append(Chart(f"{title}: {name}", charts.over_time(lines, unit), 200))
    return blocks[:8]


def series_name(series: pb.Series) -> str:
    left_out = ("instance", "rpc.system.name")
    return " ".join(value for key, value in sorted(series.labels.items()) if key not in left_out)[
        :60
    ]
