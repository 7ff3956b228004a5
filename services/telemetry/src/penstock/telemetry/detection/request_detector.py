"""The detector of requests: robust distance, calibrated, grouped by CUSUM; errors by a CUSUM of
their own. Plain; fitting is asked for.

A request of a group adds `surprise - ALLOWED` to the group's sum, which never falls below zero
(Page 1954). Above LEVEL, for longer than a burst lasts, the group is abnormal. Errors are counted
likewise against the group's own usual error rate.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from penstock.telemetry.detection.findings import Blame, Finding
from penstock.telemetry.detection.fitting import Usual
from penstock.telemetry.detection.pressure import Pressure
from penstock.telemetry.detection.request_features import (
    FEATURES,
    FLOORS,
    TIMES,
    Group,
    Values,
    Vector,
    plain,
    vectors,
)
from penstock.telemetry.detection.request_watch import Excursion, Watch
from penstock.telemetry.window.series_key import SeriesKey
from penstock.telemetry.window.settled import RequestSeen

MOST_GROUPS = 1000
FIRST_FIT = 128
ALLOWED = 2.0
LEVEL = 25.0
BURST_S = 5.0
ERROR_LEVEL = 14.0
ERRORS_FROM = 50
"""Requests from which a group's first error rate is learnt."""

REPEAT_S = 30.0
ADOPT_S = 1200.0
"""What has been abnormal for so long is the new usual: the group starts anew."""


class RequestDetector:
    """See `Detector`. Whoever owns it asks for `due` groups and gives back what was fitted."""

    def __init__(self, pressure: Pressure | None = None, most: int = MOST_GROUPS) -> None:
        self._pressure = pressure or Pressure()
        self._most = most
        self._watches: OrderedDict[Group, Watch] = OrderedDict()
        self._alerts = 0
        self._fits = 0

    def on_point(self, series: SeriesKey, unix_s: float, value: float) -> Sequence[Finding]:
        """Nothing: metrics are another detector's."""
        return ()

    def on_request(self, seen: RequestSeen) -> Sequence[Finding]:
        """Weigh a settled request in each service it went through."""
        now_s = (seen.summary.start_ns + seen.summary.duration_ns) / 1e9
        found: list[Finding] = []
        for vector in vectors(seen):
            found += self._errors(vector, self._watch(vector.errors), now_s, seen)
            if not vector.failed:
                found += self._distance(vector, self._watch(vector.group), now_s, seen)
        return found

    def _watch(self, group: Group) -> Watch:
        watch = self._watches.get(group)
        if watch is None:
            watch = self._watches[group] = Watch()
            if len(self._watches) > self._most:
                self._watches.popitem(last=False)
        else:
            self._watches.move_to_end(group)
        return watch

    def _errors(
        self, vector: Vector, watch: Watch, now_s: float, seen: RequestSeen
    ) -> Sequence[Finding]:
        watch.requests += 1
        usual = min(0.5, max(0.01, watch.error_rate))
        feared = min(0.9, max(0.15, 4.0 * usual))
        step = (
            math.log(feared / usual) if vector.failed else math.log((1.0 - feared) / (1.0 - usual))
        )
        excursion = watch.failing
        learning = watch.requests <= ERRORS_FROM
        excursion.add(0.0 if learning else step, now_s, 2.0 * ERROR_LEVEL)
        if learning or excursion.level < ERROR_LEVEL / 2 or now_s - excursion.began_s > ADOPT_S:
            watch.error_rate += (vector.failed - watch.error_rate) * max(
                0.001, 1.0 / (watch.requests + 10)
            )
        if vector.failed:
            excursion.traces.append(seen.summary.trace_id.hex())
            excursion.parts[0] += 1.0
        if (
            excursion.level < watch.raised(ERROR_LEVEL, now_s)
            or now_s - excursion.told_s < REPEAT_S
        ):
            return ()
        self._tell(watch, excursion, now_s)
        share = excursion.parts[0] / max(excursion.parts[0], excursion.requests)
        text = (
            f"{vector.errors}: {share:.0%} of {excursion.requests} requests failed; "
            f"{watch.error_rate:.1%} is usual"
        )
        blame = Blame("error_rate", 1.0, share, watch.error_rate)
        return (_finding(vector, now_s, excursion, text, (blame,)),)

    def _distance(
        self, vector: Vector, watch: Watch, now_s: float, seen: RequestSeen
    ) -> Sequence[Finding]:
        excursion = watch.slow
        waited = math.log(self._pressure.stretch(vector.host, seen.summary.start_ns / 1e9, now_s))
        if watch.usual is not None:
            values = _unhurried(vector.values, max(0.0, waited - watch.sample.waited))
            parts = watch.usual.parts(values)
            surprise = watch.usual.surprise(sum(parts))
            if excursion.add(surprise - ALLOWED, now_s, 2.0 * LEVEL):
                _remember(excursion, parts, values, surprise, seen)
        if excursion.level < LEVEL / 3:
            watch.sample.take(vector.values, waited, now_s)
        level = watch.raised(LEVEL, now_s)
        if (
            excursion.level < level
            or now_s - excursion.began_s < BURST_S
            or now_s - excursion.told_s < REPEAT_S
        ):
            return ()
        if now_s - excursion.began_s > ADOPT_S:
            self._watches[vector.group] = Watch(
                alerts=watch.alerts, alerts_s=now_s, error_rate=watch.error_rate
            )
            return ()
        blames = _blames(excursion, watch.usual)
        if not blames:
            return ()
        self._tell(watch, excursion, now_s)
        text = f"{vector.group}: {_words(blames[0])} over {excursion.requests} requests"
        return (_finding(vector, now_s, excursion, text, blames),)

    def _tell(self, watch: Watch, excursion: Excursion, now_s: float) -> None:
        if excursion.told_s == -math.inf:
            watch.alerts += 1.0
            self._alerts += 1
        excursion.told_s = now_s

    def due(self) -> tuple[Group, tuple[Values, ...]] | None:
        """A group whose sample has grown by half since it was fitted, with the sample; None when
        there is none.
        """
        for group, watch in self._watches.items():
            sample = watch.sample
            held = len(sample.values)
            if held >= FIRST_FIT and sample.fresh >= (held // 2 if watch.usual else FIRST_FIT):
                sample.fresh = 0
                return group, tuple(sample.values)
        return None

    def learnt(self, group: Group, usual: Usual) -> None:
        """Take what was fitted."""
        if (watch := self._watches.get(group)) is not None:
            watch.usual = usual
            self._fits += 1

    def state(self) -> Mapping[str, float]:
        """Groups watched, those fitted, fits and alerts so far."""
        fitted = sum(watch.usual is not None for watch in self._watches.values())
        return {
            "groups": len(self._watches),
            "groups_fitted": fitted,
            "fits": self._fits,
            "request_alerts": self._alerts,
        }


def _unhurried(values: Values, waited: float) -> Values:
    """A request as it would have been had the host been no busier than usual: `waited` is the
    logarithm of the factor.
    """
    if waited == 0.0:
        return values
    return tuple(value - waited * time for value, time in zip(values, TIMES, strict=True))


def _remember(
    excursion: Excursion, parts: Values, values: Values, surprise: float, seen: RequestSeen
) -> None:
    """What went into a sum: parts and values weigh as much as they surprise."""
    for index, (part, value) in enumerate(zip(parts, values, strict=True)):
        excursion.parts[index] += max(0.0, part)
        excursion.values[index] += value
    if surprise > ALLOWED:
        excursion.traces.append(seen.summary.trace_id.hex())


def _blames(excursion: Excursion, usual: Usual | None) -> tuple[Blame, ...]:
    """Features by their part of the distance, the largest first; none below a twentieth or below
    what means anything.
    """
    whole = sum(excursion.parts)
    if usual is None or whole <= 0.0:
        return ()
    found = []
    for index, part in enumerate(excursion.parts):
        mean = excursion.values[index] / excursion.requests
        if part / whole >= 0.05 and abs(mean - usual.centre[index]) >= FLOORS[index]:
            expected = plain(index, usual.centre[index])
            found.append(Blame(FEATURES[index], part / whole, plain(index, mean), expected))
    return tuple(sorted(found, key=lambda blame: -blame.share))


def _words(blame: Blame) -> str:
    return f"{blame.feature} {blame.value:.3g} where {blame.expected:.3g} is usual"


def _finding(
    vector: Vector, now_s: float, excursion: Excursion, text: str, blames: tuple[Blame, ...]
) -> Finding:
    subject, severity = str(vector.group), excursion.level / math.log(10.0)
    traces = tuple(excursion.traces)
    return Finding(
        vector.group.service,
        subject,
        "requests",
        now_s,
        severity,
        text,
        blames,
        vector.section,
        traces,
    )
