"""The detector of requests: robust distance, calibrated, grouped by CUSUM; errors by a CUSUM of their own. Plain; fitting is asked for.

A request of a group adds `surprise - ALLOWED` to the group's sum, which never falls below zero (Page 1954). Above LEVEL, for longer
than a burst lasts, the group is abnormal. Errors are counted likewise against the group's own usual error rate.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.telemetry.detection import Blame, Finding, RequestSeen, SeriesKey
from penstock.telemetry.fitting import Usual
from penstock.telemetry.request_features import FEATURES, FLOORS, Group, Values, Vector, plain, vectors

MOST_GROUPS = 1000
SAMPLE = 500
"""Requests that a group is learnt from. One more and the fit takes ten times as long: scikit-learn then splits the sample in parts."""

FIRST_FIT = 128
THIN_S = 0.25
"""A group's sample takes at most one request in this time, so that it spans minutes however busy the group is."""

ALLOWED = 2.0
LEVEL = 25.0
BURST_S = 5.0
ERROR_LEVEL = 14.0
ERRORS_FROM = 50
"""Requests from which a group's first error rate is learnt."""

REPEAT_S = 30.0
ADOPT_S = 1200.0
"""What has been abnormal for so long is the new usual: the group starts anew."""

RAISE = 0.5
CALM_S = 7200.0
"""Half-life of a group's alerts, each of which raises the group's own level."""


@dataclass(slots=True)
class Excursion:
    """A sum above zero: since when, and what went into it."""

    level: float = 0.0
    began_s: float = 0.0
    told_s: float = -math.inf
    requests: int = 0
    parts: list[float] = field(default_factory=lambda: [0.0] * len(FEATURES))
    values: list[float] = field(default_factory=lambda: [0.0] * len(FEATURES))
    traces: deque[str] = field(default_factory=lambda: deque(maxlen=5))

    def add(self, amount: float, now_s: float, most: float) -> bool:
        """Add to the sum; False when it is back at zero."""
        if self.level == 0.0 and amount > 0.0:
            self._begin(now_s)
        self.level = min(most, max(0.0, self.level + amount))
        self.requests += self.level > 0.0
        return self.level > 0.0

    def _begin(self, now_s: float) -> None:
        self.began_s, self.told_s, self.requests = now_s, -math.inf, 0
        self.parts = [0.0] * len(FEATURES)
        self.values = [0.0] * len(FEATURES)
        self.traces.clear()


@dataclass(slots=True)
class Watch:
    """What is held of a group."""

    sample: deque[Values] = field(default_factory=lambda: deque(maxlen=SAMPLE))
    taken_s: float = -math.inf
    fresh: int = 0
    usual: Usual | None = None
    slow: Excursion = field(default_factory=Excursion)
    failing: Excursion = field(default_factory=Excursion)
    requests: int = 0
    error_rate: float = 0.0
    alerts: float = 0.0
    alerts_s: float = 0.0

    def raised(self, level: float, now_s: float) -> float:
        """The level with what earlier alerts add to it."""
        self.alerts *= 0.5 ** (max(0.0, now_s - self.alerts_s) / CALM_S)
        self.alerts_s = now_s
        return level * (1.0 + RAISE * math.log2(1.0 + self.alerts))


class RequestDetector:
    """See `Detector`. Whoever owns it asks for `due` groups and gives back what was fitted."""

    def __init__(self, most: int = MOST_GROUPS) -> None:
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

    def _errors(self, vector: Vector, watch: Watch, now_s: float, seen: RequestSeen) -> Sequence[Finding]:
        watch.requests += 1
        usual = min(0.5, max(0.01, watch.error_rate))
        feared = min(0.9, max(0.15, 4.0 * usual))
        step = math.log(feared / usual) if vector.failed else math.log((1.0 - feared) / (1.0 - usual))
        excursion = watch.failing
        learning = watch.requests <= ERRORS_FROM
        excursion.add(0.0 if learning else step, now_s, 2.0 * ERROR_LEVEL)
        if learning or excursion.level < ERROR_LEVEL / 2 or now_s - excursion.began_s > ADOPT_S:
            watch.error_rate += (vector.failed - watch.error_rate) * max(0.001, 1.0 / (watch.requests + 10))
        if vector.failed:
            excursion.traces.append(seen.summary.trace_id.hex())
            excursion.parts[0] += 1.0
        if excursion.level < watch.raised(ERROR_LEVEL, now_s) or now_s - excursion.told_s < REPEAT_S:
            return ()
        self._tell(watch, excursion, now_s)
        share = excursion.parts[0] / max(excursion.parts[0], excursion.requests)
        text = f"{vector.errors}: {share:.0%} of {excursion.requests} requests failed; {watch.error_rate:.1%} is usual"
        blame = Blame("error_rate", 1.0, share, watch.error_rate)
        return (_finding(vector, now_s, excursion, text, (blame,)),)

    def _distance(self, vector: Vector, watch: Watch, now_s: float, seen: RequestSeen) -> Sequence[Finding]:
        excursion = watch.slow
        if watch.usual is not None:
            parts = watch.usual.parts(vector.values)
            surprise = watch.usual.surprise(sum(parts))
            if excursion.add(surprise - ALLOWED, now_s, 2.0 * LEVEL):
                _remember(excursion, parts, vector.values, surprise, seen)
        if excursion.level < LEVEL / 3 and now_s - watch.taken_s >= THIN_S:
            watch.sample.append(vector.values)
            watch.taken_s = now_s
            watch.fresh += 1
        level = watch.raised(LEVEL, now_s)
        if excursion.level < level or now_s - excursion.began_s < BURST_S or now_s - excursion.told_s < REPEAT_S:
            return ()
        if now_s - excursion.began_s > ADOPT_S:
            self._watches[vector.group] = Watch(alerts=watch.alerts, alerts_s=now_s, error_rate=watch.error_rate)
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
        """A group whose sample has grown by half since it was fitted, with the sample; None when there is none."""
        for group, watch in self._watches.items():
            held = len(watch.sample)
            if held >= FIRST_FIT and watch.fresh >= (held // 2 if watch.usual else FIRST_FIT):
                watch.fresh = 0
                return group, tuple(watch.sample)
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


def _remember(excursion: Excursion, parts: Values, values: Values, surprise: float, seen: RequestSeen) -> None:
    """What went into a sum: parts and values weigh as much as they surprise."""
    for index, (part, value) in enumerate(zip(parts, values, strict=True)):
        excursion.parts[index] += max(0.0, part)
        excursion.values[index] += value
    if surprise > ALLOWED:
        excursion.traces.append(seen.summary.trace_id.hex())


def _blames(excursion: Excursion, usual: Usual | None) -> tuple[Blame, ...]:
    """Features by their part of the distance, the largest first; none below a twentieth or below what means anything."""
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


def _finding(vector: Vector, now_s: float, excursion: Excursion, text: str, blames: tuple[Blame, ...]) -> Finding:
    subject, severity = str(vector.group), excursion.level / math.log(10.0)
    traces = tuple(excursion.traces)
    return Finding(vector.group.service, subject, "requests", now_s, severity, text, blames, vector.section, traces)
