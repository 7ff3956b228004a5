"""CPU pressure of this machine, and by how much it can have slowed work down.

The kernel adds up the time in which some task was ready to run and had to wait for a CPU (PSI,
`/proc/pressure/cpu`). In a period of which the share `p` was such time, work that needs one second
of CPU takes up to `1 / (1 - p)` seconds.

The counter is read by `penstock.telemetry.ingest.host_metrics`.
"""

from __future__ import annotations

from collections import deque

READ_INTERVAL_S = 2.0
"""Seconds between readings. The kernel updates its counter as often, so what happened at a moment
may show in the reading before or after it.
"""

MAX_READINGS = 120
"""Four minutes, longer than any trace stays open."""

MAX_SHARE = 0.95
"""A larger share counts as this one, so that no latency is divided by more than twenty."""


class CpuPressure:
    """Recent readings of one machine.

    Args:
        host: the machine's boot identifier; empty: not known.
    """

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._readings: deque[tuple[float, float]] = deque(maxlen=MAX_READINGS)
        """(Unix time, the kernel's counter), both in seconds."""

    def add(self, unix_s: float, waited_s: float) -> float:
        """Take a reading of the kernel's counter; returns the share of time waited since the one
        before, 0 to 1.
        """
        share = 0.0
        if self._readings and unix_s > self._readings[-1][0]:
            before_unix_s, before_waited_s = self._readings[-1]
            share = min(1.0, max(0.0, (waited_s - before_waited_s) / (unix_s - before_unix_s)))
        self._readings.append((unix_s, waited_s))
        return share

    def slowdown(self, host: str, from_s: float, to_s: float) -> float:
        """The largest factor by which work on a host may have taken longer in a period.

        1 where it is not known, as for every other host. The period is in Unix seconds.
        """
        if not host or host != self._host:
            return 1.0
        worst = 0.0
        later: tuple[float, float] | None = None
        for reading in reversed(self._readings):
            unix_s, waited_s = reading
            if later is not None and later[0] > unix_s and unix_s <= to_s + READ_INTERVAL_S:
                worst = max(worst, (later[1] - waited_s) / (later[0] - unix_s))
            if unix_s < from_s - READ_INTERVAL_S:
                break
            later = reading
        return 1.0 / (1.0 - min(MAX_SHARE, worst))
