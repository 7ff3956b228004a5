"""The detector of requests: finds groups of requests that have become slower, costlier, less
certain, or that fail more often than usual.

Distance. Each request is a vector of features, see `request_features`. Its surprisal against the
group's baseline, less an allowance, is added to the group's CUSUM (Page 1954): a sum that never
falls below zero. One odd request does not lift it far; many in a row do. The group is abnormal when
the sum is above its alert level for longer than a burst lasts. Before that, what CPU pressure
explains is taken off a request's latency.

Errors. Each request adds its log likelihood ratio of a bad error rate against the usual one to a
second CUSUM.

What stays abnormal for ADOPT_AFTER_S is the new normal: the group learns its baseline anew.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.telemetry.detection.cpu_pressure import CpuPressure
from penstock.telemetry.detection.group_state import Baseline, CusumState, GroupState
from penstock.telemetry.detection.incidents import Contribution, Finding
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
from penstock.telemetry.window.series import SeriesKey
from penstock.telemetry.window.settled_traces import SettledRequest

MAX_GROUPS = 1000
FIRST_FIT_SIZE = 128
"""Requests in a group's sample before its first baseline is fitted."""

ALLOWANCE_NATS = 2.0
"""Surprisal that does not lift the distance CUSUM."""

DISTANCE_LEVEL_NATS = 25.0
LEARNING_LEVEL_NATS = DISTANCE_LEVEL_NATS / 3
"""Above this, requests are too suspect to learn a baseline from."""

BURST_S = 5.0
"""A rise of the distance CUSUM that is shorter is no anomaly."""

ERROR_LEVEL_NATS = 14.0
ERROR_LEARNING_REQUESTS = 50
"""Requests of a group from which its error rate is first learned."""

REPEAT_AFTER_S = 30.0
"""While a group is abnormal, a finding is repeated this often at most."""

ADOPT_AFTER_S = 1200.0
MIN_CONTRIBUTION_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class FitRequest:
    """A group whose baseline is to be fitted, and what to fit it to."""

    group: RequestGroup
    sample: tuple[FeatureValues, ...]


class RequestDetector:
    """See `Detector`.

    Baselines are fitted elsewhere, because fitting is slow: whoever owns the detector asks for
    `next_fit` again and again, and returns each result by `set_baseline`.

    Args:
        pressure: CPU pressure of this machine.
        max_groups: beyond it, the group without a request for longest is forgotten.
    """

    def __init__(self, pressure: CpuPressure | None = None, max_groups: int = MAX_GROUPS) -> None:
        self._pressure = pressure or CpuPressure()
        self._max_groups = max_groups
        self._groups: OrderedDict[RequestGroup, GroupState] = OrderedDict()
        self._alerts = 0
        self._fits = 0

    def observe_sample(self, series: SeriesKey, unix_s: float, value: float) -> Sequence[Finding]:
        """Nothing: this detector looks at requests only."""
        return ()

    def observe_request(self, request: SettledRequest) -> Sequence[Finding]:
        """Compare a request with its group, in each process on its critical path."""
        findings: list[Finding] = []
        log_slowdowns: dict[str, float] = {}
        for vector in feature_vectors(request):
            findings += self._observe_error(vector, request)
            if vector.failed:
                continue
            if vector.host not in log_slowdowns:
                log_slowdowns[vector.host] = self._log_slowdown(vector.host, request)
            findings += self._observe_distance(vector, request, log_slowdowns[vector.host])
        return findings

    def _observe_error(self, vector: FeatureVector, request: SettledRequest) -> Sequence[Finding]:
        now_s = request.end_unix_s
        state = self._state(vector.error_group)
        cusum = state.error_cusum
        state.requests += 1
        is_learning = state.requests <= ERROR_LEARNING_REQUESTS
        ratio = 0.0 if is_learning else error_log_likelihood_ratio(state.error_rate, vector.failed)
        cusum.add(ratio, now_s, 2.0 * ERROR_LEVEL_NATS)
        is_calm = cusum.level < ERROR_LEVEL_NATS / 2
        if is_learning or is_calm or now_s - cusum.began_s > ADOPT_AFTER_S:
            state.count_error(vector.failed)
        if vector.failed:
            cusum.failures += 1
            cusum.trace_ids.append(request.summary.trace_id.hex())
        if not _may_alert(cusum, state.alert_level(ERROR_LEVEL_NATS, now_s), now_s):
            return ()
        self._count_alert(state, cusum, now_s)
        return (_error_finding(vector, cusum, state.error_rate, now_s),)

    def _observe_distance(
        self, vector: FeatureVector, request: SettledRequest, log_slowdown: float
    ) -> Sequence[Finding]:
        now_s = request.end_unix_s
        state = self._state(vector.group)
        cusum = state.distance_cusum
        if state.baseline is not None:
            excess = max(0.0, log_slowdown - state.sample.mean_log_slowdown)
            values = without_slowdown(vector.values, excess)
            _add_distance(cusum, state.baseline, values, request)
        if cusum.level < LEARNING_LEVEL_NATS:
            state.sample.offer(vector.values, log_slowdown, now_s)
        age_s = now_s - cusum.began_s
        level = state.alert_level(DISTANCE_LEVEL_NATS, now_s)
        if age_s < BURST_S or not _may_alert(cusum, level, now_s):
            return ()
        if age_s > ADOPT_AFTER_S:
            self._groups[vector.group] = state.restarted(now_s)
            return ()
        contributions = _contributions(cusum, state.baseline)
        if not contributions:
            return ()
        self._count_alert(state, cusum, now_s)
        return (_distance_finding(vector, cusum, contributions, now_s),)

    def _log_slowdown(self, host: str, request: SettledRequest) -> float:
        """Logarithm of the factor by which CPU pressure may have slowed the request down on a
        host.
        """
        start_s = request.summary.start_ns / 1e9
        return math.log(self._pressure.slowdown(host, start_s, request.end_unix_s))

    def _state(self, group: RequestGroup) -> GroupState:
        state = self._groups.get(group)
        if state is None:
            state = self._groups[group] = GroupState()
            if len(self._groups) > self._max_groups:
                self._groups.popitem(last=False)
        else:
            self._groups.move_to_end(group)
        return state

    def _count_alert(self, state: GroupState, cusum: CusumState, now_s: float) -> None:
        """Count an alert once for each rise of a CUSUM, however often its finding is repeated."""
        if cusum.alerted_s == -math.inf:
            state.count_alert(now_s)
            self._alerts += 1
        cusum.alerted_s = now_s

    def next_fit(self) -> FitRequest | None:
        """A group to fit: one without a baseline and with a large enough sample, or one whose
        sample is half new since the last fit. None when there is no such group.
        """
        for group, state in self._groups.items():
            sample = state.sample
            size = len(sample.values)
            needed = size // 2 if state.baseline else FIRST_FIT_SIZE
            if size >= FIRST_FIT_SIZE and sample.new_since_fit >= needed:
                sample.new_since_fit = 0
                return FitRequest(group, tuple(sample.values))
        return None

    def set_baseline(self, group: RequestGroup, baseline: Baseline) -> None:
        """Use a fitted baseline; ignored when the group was forgotten meanwhile."""
        if (state := self._groups.get(group)) is not None:
            state.baseline = baseline
            self._fits += 1

    def metrics(self) -> Mapping[str, float]:
        """Groups, groups with a baseline, fits and alerts so far."""
        fitted = sum(state.baseline is not None for state in self._groups.values())
        return {
            "groups": len(self._groups),
            "groups_fitted": fitted,
            "fits": self._fits,
            "request_alerts": self._alerts,
        }


def error_log_likelihood_ratio(error_rate: float, failed: bool) -> float:
    """How much one request speaks for a bad error rate against the usual one, in nats.

    Bad is four times the usual rate, at least 15 %.
    """
    usual = min(0.5, max(0.01, error_rate))
    bad = min(0.9, max(0.15, 4.0 * usual))
    return math.log(bad / usual) if failed else math.log((1.0 - bad) / (1.0 - usual))


def without_slowdown(values: FeatureValues, log_slowdown: float) -> FeatureValues:
    """A request's values as they would be had it not been slowed down by this factor."""
    if log_slowdown == 0.0:
        return values
    return tuple(
        value - log_slowdown * weight
        for value, weight in zip(values, SLOWDOWN_WEIGHTS, strict=True)
    )


def _add_distance(
    cusum: CusumState, baseline: Baseline, values: FeatureValues, request: SettledRequest
) -> None:
    """Add a request's surprisal to the CUSUM, and remember what it is made of."""
    parts = baseline.distance_parts(values)
    surprisal = baseline.surprisal(sum(parts))
    max_level = 2.0 * DISTANCE_LEVEL_NATS
    if not cusum.add(surprisal - ALLOWANCE_NATS, request.end_unix_s, max_level):
        return
    cusum.add_values(parts, values)
    if surprisal > ALLOWANCE_NATS:
        cusum.trace_ids.append(request.summary.trace_id.hex())


def _may_alert(cusum: CusumState, level: float, now_s: float) -> bool:
    return cusum.level >= level and now_s - cusum.alerted_s >= REPEAT_AFTER_S


def _contributions(cusum: CusumState, baseline: Baseline | None) -> tuple[Contribution, ...]:
    """Features by their share of the distance, the largest first.

    Left out are those with less than MIN_CONTRIBUTION_SHARE and those whose mean is closer to the
    baseline than MIN_DIFFERENCES.
    """
    distance = sum(cusum.part_sums)
    if baseline is None or distance <= 0.0:
        return ()
    contributions = []
    for index, part in enumerate(cusum.part_sums):
        mean = cusum.value_sums[index] / cusum.requests
        centre = baseline.centre[index]
        is_large = abs(mean - centre) >= MIN_DIFFERENCES[index]
        if is_large and part / distance >= MIN_CONTRIBUTION_SHARE:
            value, expected = in_unit(index, mean), in_unit(index, centre)
            contributions.append(Contribution(FEATURES[index], part / distance, value, expected))
    return tuple(sorted(contributions, key=lambda part: -part.share))


def _error_finding(
    vector: FeatureVector, cusum: CusumState, usual_rate: float, now_s: float
) -> Finding:
    share = cusum.failures / max(cusum.failures, cusum.requests)
    text = (
        f"{vector.error_group}: {share:.0%} of {cusum.requests} requests failed; "
        f"{usual_rate:.1%} is usual"
    )
    contribution = Contribution("error_rate", 1.0, share, usual_rate)
    return _finding(vector, cusum, text, (contribution,), now_s)


def _distance_finding(
    vector: FeatureVector, cusum: CusumState, contributions: tuple[Contribution, ...], now_s: float
) -> Finding:
    largest = contributions[0]
    text = (
        f"{vector.group}: {largest.feature} {largest.value:.3g} where {largest.expected:.3g} is "
        f"usual over {cusum.requests} requests"
    )
    return _finding(vector, cusum, text, contributions, now_s)


def _finding(
    vector: FeatureVector,
    cusum: CusumState,
    text: str,
    contributions: tuple[Contribution, ...],
    now_s: float,
) -> Finding:
    return Finding(
        vector.group.service,
        str(vector.group),
        "requests",
        now_s,
        severity=cusum.level / math.log(10.0),
        text=text,
        contributions=contributions,
        critical_section=vector.section,
        trace_ids=tuple(cusum.trace_ids),
    )
