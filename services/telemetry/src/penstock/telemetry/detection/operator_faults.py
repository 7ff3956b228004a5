"""Faults that only the operator can mend, as routers count them: a key that an upstream refuses, an
empty balance, a model that an upstream does not know. One is enough for an incident.

Routers let such an instance rest and serve elsewhere, so that no caller may notice; the counter
then grows once for each rest that ends in vain, and the incident stays open until the fault is
mended.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from penstock.otel import attributes as semconv
from penstock.telemetry.detection.incidents import Finding
from penstock.telemetry.window.series import Point, Series, SeriesKey

SEVERITY = 10.0
"""A counted fault is no chance."""
SETTLING_S = 60.0
"""Totals that are first seen so soon after the first of all were counted before that."""
MAX_SERIES = 10_000
ADVICE: Mapping[str, str] = {
    "UPSTREAM_CREDENTIALS": "its upstream refuses the key; renew it",
    "UPSTREAM_BALANCE": "its account at the upstream is out of money or quota; fill it up",
    "UPSTREAM_NO_MODEL": (
        "its upstream does not know the model or does not let the key use it; correct `upstreams`"
    ),
}


class OperatorFaults:
    """Finds growth of the counters of such faults."""

    def __init__(self) -> None:
        self._totals: OrderedDict[tuple[SeriesKey, str], float] = OrderedDict()
        self._first_unix_s = math.inf

    def observe_point(self, series: Series, point: Point) -> Sequence[Finding]:
        """Take a point of a counter; a finding where it has grown."""
        self._first_unix_s = min(self._first_unix_s, point.unix_s)
        key = series.key, series.instance
        is_new = point.unix_s - self._first_unix_s > SETTLING_S
        before = self._totals.pop(key, 0.0 if is_new else point.value)
        self._totals[key] = point.value
        if len(self._totals) > MAX_SERIES:
            self._totals.popitem(last=False)
        return (_finding(series.key, point.unix_s),) if point.value > before else ()


def _finding(key: SeriesKey, unix_s: float) -> Finding:
    labels = dict(key.labels)
    instance, reason = labels.get(semconv.INSTANCE, ""), labels.get(semconv.ERROR_TYPE, "")
    text = f"instance {instance}: {ADVICE.get(reason, 'its operator has to mend it')} ({reason})"
    return Finding(
        key.service, f"instance {instance}", "operator", unix_s, severity=SEVERITY, text=text
    )
