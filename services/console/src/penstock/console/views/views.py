"""The list of views.

A view is a function of the clients and of the query in the page's address; it returns blocks. The
query holds the whole state, so the same address shows the same view.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from penstock.console.drawing.blocks import Block
from penstock.console.drawing.format import Query
from penstock.console.service_clients import ServiceClients
from penstock.console.views.budgets import show_budgets
from penstock.console.views.cache import show_cache
from penstock.console.views.graph import show_graph
from penstock.console.views.incidents import show_incidents
from penstock.console.views.overview import show_overview
from penstock.console.views.requests import show_requests
from penstock.console.views.routing import show_queues, show_scoreboard
from penstock.console.views.savings import show_savings
from penstock.console.views.scaling import show_scaling

Show = Callable[[ServiceClients, Query], Awaitable[Sequence[Block]]]


@dataclass(frozen=True)
class View:
    """One page."""

    path: str
    name: str
    key: str
    """Opens it on the keyboard."""
    question: str
    """That it answers."""
    show: Show


VIEWS = (
    View("/", "Overview", "1", "Is anything wrong now?", show_overview),
    View("/savings", "Savings", "2", "Is it worth it?", show_savings),
    View("/cache", "Cache", "3", "Is the cache safe and useful?", show_cache),
    View("/scoreboard", "Score board", "4", "Why did the router choose that?", show_scoreboard),
    View("/queues", "Queues", "5", "Who is waiting?", show_queues),
    View("/budgets", "Budgets", "6", "When do we run out?", show_budgets),
    View("/scaling", "Scaling", "7", "Did scaling act in time?", show_scaling),
    View("/traces", "Requests", "8", "What is flowing, and where did the time go?", show_requests),
    View("/graph", "Service graph", "9", "Who calls whom?", show_graph),
    View("/incidents", "Incidents", "0", "What changed?", show_incidents),
)
