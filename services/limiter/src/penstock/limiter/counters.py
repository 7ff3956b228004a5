"""Counters: what each rule counts for one call's path, with the present windows.

A path says who spends and on which model. Every rule that applies to it makes one counter for each
value of the rule's level. There are three kinds: a rate, a budget of calendar windows, and a budget
of a rolling window. The ledger script reads a counter as a row, whose columns stand in
`ledger/prelude.lua`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypedDict
from urllib.parse import quote

from penstock.limiter.calendar_windows import UNIT_SECONDS, calendar_window
from penstock.limiter.rules import Level, LimitsSection, RuleSection
from penstock.service.clock import Clock
from penstock.service.purity import pure

REQUESTS, TOKENS, MICROUSD = 0, 1, 2
DIMENSIONS = {"requests": REQUESTS, "tokens": TOKENS, "microusd": MICROUSD}
Amounts = Sequence[int]
"""Requests, tokens, micro-dollars."""
ThreeAmounts = tuple[int, int, int]
NOTHING: ThreeAmounts = (0, 0, 0)
MAX_VALUE_BYTES = 128
"""A longer value stands in a counter's key as its beginning and its SHA-256."""
MAX_PATHS = 100_000
"""Paths whose counters are remembered."""
REUSED_FOR_S = 1.0
"""The counters of a path are used again for this long; if a window ends meanwhile, the script says
so.
"""


@dataclass(frozen=True, slots=True)
class SpendPath:
    """Who spends, and on which model; an empty part is counted by no rule of its level."""

    organisation: str
    team: str = ""
    user: str = ""
    key_id: str = ""
    tags: tuple[str, ...] = ()
    model: str = ""

    def values(self, level: Level) -> tuple[str, ...]:
        """The values that the path has on a level: one at most, but for tags."""
        if level == "tag":
            return tuple(dict.fromkeys(self.tags))  # a repeated tag is counted once
        value = {
            "organisation": self.organisation,
            "team": self.team,
            "user": self.user,
            "key": self.key_id,
            "model": self.model,
        }[level]
        return (value,) if value else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter(ABC):
    """What one rule counts for one value of its level, such as one user's tokens.

    `dimension` is 0 for requests, 1 for tokens, 2 for micro-dollars. `own_amount` is what is asked
    of this counter alone, such as the hits of an Envoy descriptor; None: what is asked of the path.
    """

    kind: ClassVar[str]
    key: str
    rule: str
    dimension: int
    limit: int
    is_expected: bool = False
    """True: holds what a call is expected to cost; False: the most that it may cost."""
    is_shadow: bool = False
    store_loss: str = "lease"
    own_amount: int | None = None

    def row(self) -> list[object]:
        """The counter as the ledger script reads it."""
        return [
            self.key,
            self.kind,
            self.dimension,
            self.limit,
            int(self.is_expected),
            int(self.is_shadow),
            *self._window_columns(),
            *self._budget_columns(),
            -1 if self.own_amount is None else self.own_amount,
        ]

    @abstractmethod
    def _window_columns(self) -> tuple[int, int, int]:
        """Columns 7 to 9, which depend on the kind."""

    def _budget_columns(self) -> tuple[int, list[float]]:
        return 0, []


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCounter(Counter):
    """A rate: `limit` units in `period_us`, refilled evenly, and `burst` units at once."""

    kind: ClassVar[str] = "rate"
    period_us: int
    burst: int

    def _window_columns(self) -> tuple[int, int, int]:
        return self.period_us, self.burst, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetCounter(Counter):
    """A budget: at most `limit` units are committed or held in a window."""

    is_adaptive: bool = False
    alert_shares: tuple[float, ...] = ()

    def _budget_columns(self) -> tuple[int, list[float]]:
        return int(self.is_adaptive), list(self.alert_shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarCounter(BudgetCounter):
    """A budget of calendar windows; times are Unix milliseconds."""

    kind: ClassVar[str] = "calendar"
    window_start_ms: int
    window_end_ms: int
    next_window_end_ms: int

    def _window_columns(self) -> tuple[int, int, int]:
        return self.window_start_ms, self.window_end_ms, self.next_window_end_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingCounter(BudgetCounter):
    """A budget of a rolling window of `window_ms`."""

    kind: ClassVar[str] = "rolling"
    window_ms: int

    def _window_columns(self) -> tuple[int, int, int]:
        return self.window_ms, 0, 0


def organisation_prefix(organisation: str) -> str:
    """What every key of an organisation begins with.

    The part in braces is a hash tag: a cluster keeps all these keys on one node, so that one script
    may use them together.
    """
    return f"penstock:limiter:{{{_in_key(organisation)}}}:"


def counter_key(rule: RuleSection, organisation: str, value: str) -> str:
    """The key of a rule's counter for one value of its level.

    It names what the counter's state depends on, so a rule of another kind starts a new counter.
    """
    return f"{organisation_prefix(organisation)}c:{rule.name}:{state_kind(rule)}:{_in_key(value)}"


def state_kind(rule: RuleSection) -> str:
    """What the state of a rule's counters depends on: the kind first, such as `rate-tokens` or
    `calendar-microusd-month`.
    """
    if rule.kind == "rate":
        return f"rate-{rule.counts}"
    return f"{'calendar' if rule.calendar else 'rolling'}-{rule.counts}-{rule.window}"


def _in_key(value: str) -> str:
    """A value as a part of a key: percent-encoded, so that no separator or line break stands in it,
    and of bounded length.
    """
    encoded = quote(value, safe="")
    if len(encoded) <= MAX_VALUE_BYTES:
        return encoded
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{encoded[: MAX_VALUE_BYTES - len(digest) - 1]}~{digest}"


@pure
def counters_of(section: LimitsSection, path: SpendPath, now_s: float) -> tuple[Counter, ...]:
    """The counters of a path in the order of the file, with the windows of `now_s` (Unix time)."""
    return tuple(
        _counter(rule, path.organisation, value, section.shadow, now_s)
        for rule in section.rules
        if rule.organisation in ("*", path.organisation)
        and (not rule.models or path.model in rule.models)
        for value in path.values(rule.level)
        if rule.match in ("*", value)
    )


class PathCounters:
    """The counters of paths under the rules in force, remembered for a second."""

    def __init__(self, section: LimitsSection, clock: Clock) -> None:
        self._section = section
        self._clock = clock
        self._known: dict[SpendPath, tuple[float, tuple[Counter, ...]]] = {}

    @property
    def section(self) -> LimitsSection:
        """The rules in force."""
        return self._section

    def replace(self, section: LimitsSection) -> None:
        """Put new rules in force."""
        self._section = section
        self._known = {}

    def of(self, path: SpendPath) -> tuple[Counter, ...]:
        """The counters of a path with the present windows."""
        now_s = self._clock.time()
        known = self._known.get(path)
        if known is None or not 0 <= now_s - known[0] < REUSED_FOR_S:
            if len(self._known) > MAX_PATHS:
                self._known.clear()
            known = self._known[path] = (now_s, self.at(path, now_s))
        return known[1]

    def at(self, path: SpendPath, now_s: float) -> tuple[Counter, ...]:
        """The counters of a path with the windows of `now_s` (Unix seconds)."""
        return counters_of(self._section, path, now_s)

    def of_subject(
        self, rule_name: str, organisation: str, value: str, now_s: float | None = None
    ) -> Counter | None:
        """The counter of one value of a rule's level; None if there is no such rule.

        Args:
            now_s: Unix seconds whose windows it has; None: the present ones.
        """
        now_s = self._clock.time() if now_s is None else now_s
        for rule in self._section.rules:
            if rule.name == rule_name:
                return _counter(rule, organisation, value, self._section.shadow, now_s)
        return None


def _counter(
    rule: RuleSection, organisation: str, value: str, is_shadow: bool, now_s: float
) -> Counter:
    shared = _Shared(
        key=counter_key(rule, organisation, value),
        rule=rule.name,
        dimension=DIMENSIONS[rule.counts],
        limit=rule.subjects.get(value, rule.limit),
        is_expected=rule.holds == "expected",
        is_shadow=is_shadow or rule.shadow,
        store_loss=rule.store_loss,
    )
    if rule.kind == "rate":
        burst = shared["limit"] if rule.burst is None else rule.burst
        return RateCounter(**shared, period_us=UNIT_SECONDS[rule.window] * 1_000_000, burst=burst)
    budget = _Budget(**shared, is_adaptive=rule.adaptive, alert_shares=rule.alerts)
    if not rule.calendar:
        return RollingCounter(**budget, window_ms=UNIT_SECONDS[rule.window] * 1000)
    window = calendar_window(rule.window, rule.time_zone, now_s)
    return CalendarCounter(
        **budget,
        window_start_ms=window.start_ms,
        window_end_ms=window.end_ms,
        next_window_end_ms=window.next_end_ms,
    )


class _Shared(TypedDict):
    """Fields that every kind of counter takes from its rule."""

    key: str
    rule: str
    dimension: int
    limit: int
    is_expected: bool
    is_shadow: bool
    store_loss: str


class _Budget(_Shared):
    """Fields that both kinds of budget take from their rule."""

    is_adaptive: bool
    alert_shares: tuple[float, ...]
