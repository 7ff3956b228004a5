"""Charts of every metric of a service that telemetry holds."""

from __future__ import annotations

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Chart
from penstock.console.service_clients import ServiceClients

MAX_CHARTS = 8
MAX_LINES = 12
MAX_NAME_LENGTH = 60
UNNAMED_LABELS = ("instance", "rpc.system.name")
"""Labels that do not help to tell series apart."""


async def metric_charts(clients: ServiceClients, prefix: str, title: str) -> list[Block]:
    """A chart for each metric whose name begins so."""
    listed = await clients.call(
        "telemetry", "GetMetrics", pb.GetMetricsRequest(), pb.GetMetricsResponse
    )
    if listed is None:
        return []
    names = [name for name in listed.names if name.startswith(prefix)]
    return [await _chart(clients, name, title) for name in names[:MAX_CHARTS]]


async def _chart(clients: ServiceClients, name: str, title: str) -> Chart:
    request = pb.GetMetricsRequest(name=name)
    response = await clients.call("telemetry", "GetMetrics", request, pb.GetMetricsResponse)
    series = list(response.series) if response is not None else []
    lines = {
        _series_name(one): [(float(point.unix_ms), point.value) for point in one.points]
        for one in series[:MAX_LINES]
    }
    unit = series[0].unit if series else ""
    return Chart(f"{title}: {name}", charts.over_time(lines, unit), height_px=200)


def _series_name(series: pb.Series) -> str:
    labels = sorted(series.labels.items())
    name = " ".join(value for key, value in labels if key not in UNNAMED_LABELS)
    return name[:MAX_NAME_LENGTH]
