"""The router's score board, and the batcher's queues."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Cell, Chart, Note, Row, Rows
from penstock.console.drawing.format import Query
from penstock.console.service_clients import ServiceClients
from penstock.console.views.metric_charts import metric_charts
from penstock.console.views.unavailable import unavailable

BAD_STATES = ("ejected", "lost")


async def show_scoreboard(clients: ServiceClients, _: Query) -> Sequence[Block]:
    """Why did the router choose that?"""
    board = await clients.call(
        "router",
        "GetScoreboard",
        router_pb2.GetScoreboardRequest(),
        router_pb2.GetScoreboardResponse,
    )
    if board is None:
        return unavailable(clients, "router")
    picks = sum(row.picks for row in board.rows) or 1
    columns = (
        "instance",
        "state",
        "score: added ms",
        "picks",
        "failures",
        "in flight",
        "made from",
    )
    rows = [_instance_row(row, picks) for row in board.rows]
    branches = dict(board.branches)
    picks_by_branch = {"picks": [float(count) for count in branches.values()]}
    return [
        Note(f"strategy: {board.strategy}; the lowest score wins"),
        Rows("Instances", columns, rows, "no instance has registered"),
        Chart("Why picked", charts.bars(list(branches), picks_by_branch, "picks")),
    ]


def _instance_row(row: router_pb2.ScoreboardRow, all_picks: int) -> Row:
    candidate = row.candidate
    state_name = router_pb2.InstanceState.Name(candidate.state)
    state = state_name.removeprefix("INSTANCE_STATE_").lower()
    signals = ", ".join(f"{signal.name} {signal.value:.3g}" for signal in candidate.signals)
    return [
        row.instance.id,
        Cell(state, bad=state in BAD_STATES),
        f"{candidate.score * 1e3:.3f}",
        Cell(f"{row.picks:,}", share=row.picks / all_picks),
        Cell(str(row.failures), bad=row.failures > 0),
        str(row.in_flight),
        candidate.filtered_reason or signals,
    ]


async def show_queues(clients: ServiceClients, _: Query) -> Sequence[Block]:
    """Who is waiting?"""
    response = await clients.call(
        "batcher", "ListQueues", batcher_pb2.ListQueuesRequest(), batcher_pb2.ListQueuesResponse
    )
    if response is None:
        return unavailable(clients, "batcher")
    queues = _by_instance(response.queues)
    depths = _depths(queues)
    instances = [queue.instance_id for queue in queues]
    series = {
        priority: [float(by_instance.get(instance, 0)) for instance in instances]
        for priority, by_instance in depths.items()
    }
    columns = ("instance", *depths, "oldest ms", "batches running")
    rows = [_queue_row(queue, depths) for queue in queues]
    return [
        Chart("Rows waiting by priority", charts.bars(instances, series, "rows", stacked=True)),
        Rows("Queues", columns, rows, "no instance has a queue"),
        *await metric_charts(clients, "penstock.batcher", "Batcher"),
    ]


def _by_instance(queues: Sequence[batcher_pb2.Queue]) -> list[batcher_pb2.Queue]:
    """One queue an instance: while it changes its owner, two batchers have one for it."""
    merged: dict[str, batcher_pb2.Queue] = {}
    for queue in queues:
        known = merged.setdefault(queue.instance_id, queue)
        if known is not queue:
            known.running += queue.running
            known.classes.extend(queue.classes)
    return list(merged.values())


def _depths(queues: Sequence[batcher_pb2.Queue]) -> dict[str, dict[str, int]]:
    """Rows waiting, by priority and instance."""
    depths: dict[str, dict[str, int]] = {}
    for queue in queues:
        for part in queue.classes:
            name = common_pb2.Priority.Name(part.priority).removeprefix("PRIORITY_").lower()
            by_instance = depths.setdefault(name, {})
            by_instance[queue.instance_id] = by_instance.get(queue.instance_id, 0) + part.depth
    return depths


def _queue_row(queue: batcher_pb2.Queue, depths: dict[str, dict[str, int]]) -> Row:
    oldest_ms = max((part.oldest_age_ms for part in queue.classes), default=0)
    return [
        queue.instance_id,
        *(str(by_instance.get(queue.instance_id, 0)) for by_instance in depths.values()),
        f"{oldest_ms}",
        f"{queue.running} of {queue.concurrency}",
    ]
