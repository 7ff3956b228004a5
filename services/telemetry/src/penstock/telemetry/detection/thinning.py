"""Which requests the detectors look at where there are very many.

What a detector needs to find a change in a group of requests it has after some tens of them, and a
change has to last for seconds before it is reported. Of the requests of one operation and model
that are more than PER_S a second, every second, third, … is looked at, whether it failed or not: so
shares of failures stay what they are.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.otel import attributes as semconv
from penstock.service.bounded_map import BoundedMap
from penstock.telemetry.window.settled_traces import SettledRequest

PER_S = 100
"""Requests of one operation and model in a second that are all looked at."""
MAX_KINDS = 4096
LATE_S = 30
"""Seconds. Traces do not settle in the order in which they ended: one that ended so much before the
latest at most is counted with that. One further back says that the latest's clock was ahead.
"""


class _Second(NamedTuple):
    """The requests of one kind in a second of Unix time."""

    unix_s: int
    requests: int
    stride: int
    """Of so many requests one is looked at, by how many there were in the second before."""


class Thinning:
    """Counts requests by operation and model. Beyond MAX_KINDS, the kind without a request for
    longest is forgotten.
    """

    def __init__(self) -> None:
        self._seconds: BoundedMap[tuple[str, str, str], _Second] = BoundedMap(MAX_KINDS)

    def __len__(self) -> int:
        """How many kinds are known."""
        return len(self._seconds)

    def takes(self, request: SettledRequest) -> bool:
        """Count a request; whether to look at it."""
        root, now_s = request.tree.root, int(request.end_unix_s)
        model = str(root.attributes.get(semconv.REQUEST_MODEL, ""))
        kind = (root.source.service, root.name, model)
        last = self._seconds.get(kind, _Second(now_s, 0, 1))
        if 0 <= last.unix_s - now_s <= LATE_S:
            seen = last._replace(requests=last.requests + 1)
        else:
            seen = _Second(now_s, 1, max(1, last.requests // PER_S))
        self._seconds.put(kind, seen)
        return seen.requests % seen.stride == 0
