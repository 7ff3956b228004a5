"""The detector of requests: robust distance, calibrated, grouped by CUSUM; errors by a CUSUM of
their own. Plain; fitting is asked for.

A request of a group adds `surprisal - ALLOWED` to the group's sum, which never falls below zero
(Page 1954). Above LEVEL, for longer than a burst lasts, the group is abnormal. Errors are counted
likewise against the group's own usual error rate.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from penstock.telemetry.detection.baseline import Baseline
from penstock.telemetry.detection.cpu_pressure import CpuPressure
from penstock.telemetry.detection.findings import Contribution, Finding
from penstock.telemetry.detection.group_state import CusumState, GroupState
from penstock.telemetry.detection.request_features import (
    FEATURES,
    MIN_DIFFERENCES,
    SLOWDOWN_WEIGHTS,
    FeatureValues,
    FeatureVector,
    RequestGroup,
    feature_vectors,
    in_unit,
)
from penstock.telemetry.window.series_key import SeriesKey
from penstock.telemetry.window.settled import SettledRequest

MAX_GROUPS = 1000
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

    def __init__(self, pressure: CpuPressure | None = None, most: int = MAX_GROUPS) -> None:
        self._pressure = pressure or CpuPressure()
        self._most = most
        self._watches: OrderedDict[RequestGroup, GroupState] = OrderedDict()
        self._alerts = 0
        self._fits = 0

    def observe_sample(self, series: SeriesKey, unix_s: float, value: float) -> Sequence[Finding]:
        """Nothing: metrics are another detector's."""
        return ()

    def observe_request(self, seen: SettledRequest) -> Sequence[Finding]:
        """Weigh a settled request in each service it went through."""
        now_s = (seen.summary.start_ns + seen.summary.duration_ns) / 1e9
        found: list[Finding] = []
        for vector in feature_vectors(seen):
            found += self._errors(vector, self._watch(vector.errors), now_s, seen)
            if not vector.failed:
                found += self._distance(vector, self._watch(vector.group), now_s, seen)
        return found

    def _watch(self, group: RequestGroup) -> GroupState:
        watch = self._watches.get(group)
        if watch is None:
            watch = self._watches[group] = GroupState()
            if len(self._watches) > self._most:
                self._watches.popitem(last=False)
        else:
            self._watches.move_to_end(group)
        return watch

    def _errors(
        self, vector: FeatureVector, watch: GroupState, now_s: float, seen: SettledRequest
    ) -> Sequence[Finding]:
        watch.requests += 1
        usual = min(0.5, max(0.01, watch.error_rate))
        feared = min(0.9, max(0.15, 4.0 * usual))
        step = (
            math.log(feared / usual) if vector.failed else math.log((1.0 - feared) / (1.0 - usual))
        )
        cusum = watch.failing
        learning = watch.requests <= ERRORS_FROM
        cusum.add(0.0 if learning else step, now_s, 2.0 * ERROR_LEVEL)
        if learning or cusum.level < ERROR_LEVEL / 2 or now_s - cusum.began_s > ADOPT_S:
            watch.error_rate += (vector.failed - watch.error_rate) * max(
                0.001, 1.0 / (watch.requests + 10)
            )
        if vector.failed:
            cusum.traces.append(seen.summary.trace_id.hex())
            cusum.distance_parts[0] += 1.0
        if cusum.level < watch.raised(ERROR_LEVEL, now_s) or now_s - cusum.told_s < REPEAT_S:
            return ()
        self._tell(watch, cusum, now_s)
        share = cusum.distance_parts[0] / max(cusum.distance_parts[0], cusum.requests)
        text = (
            f"{vector.errors}: {share:.0%} of {cusum.requests} requests failed; "
            f"{watch.error_rate:.1%} is usual"
        )
        contribution = Contribution("error_rate", 1.0, share, watch.error_rate)
        return (_finding(vector, now_s, cusum, text, (contribution,)),)

    def _distance(
        self, vector: FeatureVector, watch: GroupState, now_s: float, seen: SettledRequest
    ) -> Sequence[Finding]:
        cusum = watch.slow
        waited = math.log(self._pressure.slowdown(vector.host, seen.summary.start_ns / 1e9, now_s))
        if watch.usual is not None:
            values = _unhurried(vector.values, max(0.0, waited - watch.sample.waited))
            distance_parts = watch.usual.distance_parts(values)
            surprisal = watch.usual.surprisal(sum(distance_parts))
            if cusum.add(surprisal - ALLOWED, now_s, 2.0 * LEVEL):
                _remember(cusum, distance_parts, values, surprisal, seen)
        if cusum.level < LEVEL / 3:
            watch.sample.take(vector.values, waited, now_s)
        level = watch.raised(LEVEL, now_s)
        if (
            cusum.level < level
            or now_s - cusum.began_s < BURST_S
            or now_s - cusum.told_s < REPEAT_S
        ):
            return ()
        if now_s - cusum.began_s > ADOPT_S:
            self._watches[vector.group] = GroupState(
                alerts=watch.alerts, alerts_s=now_s, error_rate=watch.error_rate
            )
            return ()
        contributions = _blames(cusum, watch.usual)
        if not contributions:
            return ()
        self._tell(watch, cusum, now_s)
        text = f"{vector.group}: {_words(contributions[0])} over {cusum.requests} requests"
        return (_finding(vector, now_s, cusum, text, contributions),)

    def _tell(self, watch: GroupState, cusum: CusumState, now_s: float) -> None:
        if cusum.told_s == -math.inf:
            watch.alerts += 1.0
            self._alerts += 1
        cusum.told_s = now_s

    def due(self) -> tuple[RequestGroup, tuple[FeatureValues, ...]] | None:
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

    def set_baseline(self, group: RequestGroup, usual: Baseline) -> None:
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


def _unhurried(values: FeatureValues, waited: float) -> FeatureValues:
    """A request as it would have been had the host been no busier than usual: `waited` is the
    logarithm of the factor.
    """
    if waited == 0.0:
        return values
    return tuple(
        value - waited * time for value, time in zip(values, SLOWDOWN_WEIGHTS, strict=True)
    )


def _remember(
    cusum: CusumState,
    distance_parts: FeatureValues,
    values: FeatureValues,
    surprisal: float,
    seen: SettledRequest,
) -> None:
    """What went into a sum: parts and values weigh as much as they surprise."""
    for index, (part, value) in enumerate(zip(distance_parts, values, strict=True)):
        cusum.distance_parts[index] += max(0.0, part)
        cusum.values[index] += value
    if surprisal > ALLOWED:
        cusum.traces.append(seen.summary.trace_id.hex())


def _blames(cusum: CusumState, usual: Baseline | None) -> tuple[Contribution, ...]:
    """Features by their part of the distance, the largest first; none below a twentieth or below
    what means anything.
    """
    whole = sum(cusum.distance_parts)
    if usual is None or whole <= 0.0:
        return ()
    found = []
    for index, part in enumerate(cusum.distance_parts):
        mean = cusum.values[index] / cusum.requests
        if part / whole >= 0.05 and abs(mean - usual.centre[index]) >= MIN_DIFFERENCES[index]:
            expected = in_unit(index, usual.centre[index])
            found.append(
                Contribution(FEATURES[index], part / whole, in_unit(index, mean), expected)
            )
    return tuple(sorted(found, key=lambda contribution: -contribution.share))


def _words(part: Contribution) -> str:
    return f"{part.feature} {part.value:.3g} where {part.expected:.3g} is usual"


def _finding(
    vector: FeatureVector,
    now_s: float,
    cusum: CusumState,
    text: str,
    contributions: tuple[Contribution, ...],
) -> Finding:
    subject, severity = str(vector.group), cusum.level / math.log(10.0)
    traces = tuple(cusum.traces)
    return Finding(
        vector.group.service,
        subject,
        "requests",
        now_s,
        severity,
        text,
        contributions,
        vector.section,
        traces,
    )
