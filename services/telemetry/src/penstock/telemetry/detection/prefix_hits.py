"""Whether providers' prefix caches are read as much as before: the hit share of each deployment (a
model at an instance) and of each tenant's use of a model.

The hit share of a prompt is the part of its prefix that was read, of all that could have been. The
first prompts of a group are its reference; from then on a sum of log likelihood ratios watches for
a fall. The finding names what most losses since had in common. While the share stays low, it is
repeated, so that its incident stays open.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.otel import attributes as semconv
from penstock.service.bounded_map import BoundedMap
from penstock.telemetry.detection.incidents import Contribution, Finding
from penstock.telemetry.spans.spans import SpanView
from penstock.telemetry.window.settled_traces import SettledRequest

REFERENCE_SIZE = 50
"""Prompts that make the reference of a group."""
MAX_GROUPS = 4096
RECENT_LOSSES = 50
"""Losses among which the commonest cause is looked for."""
REPEAT_AFTER_S = 60.0
ALARM_NATS = math.log(1e4)
"""Chance reaches it at most once in ten thousand prompts (Lorden 1971)."""
RECENT_WEIGHT = 0.1
SEVERITY = 4.0
"""Minus the decimal logarithm of that chance."""
FEATURE = "prefix_hit_share"


@dataclass(frozen=True, slots=True)
class PrefixUse:
    """What one prompt read of its prefix.

    Attributes:
        service: that reports it.
        model: that answered.
        instance: that answered.
        tenant: whose call it was.
        cached_tokens: read from the cache.
        lost_tokens: that could have been read and were not.
        lost_microusd: what they cost.
        cause: why they were not; empty where none are lost.
    """

    service: str
    model: str
    instance: str
    tenant: str
    cached_tokens: int
    lost_tokens: int
    lost_microusd: int
    cause: str

    @property
    def share(self) -> float:
        """The hit share, 0 to 1."""
        return self.cached_tokens / (self.cached_tokens + self.lost_tokens)

    @property
    def subjects(self) -> tuple[str, str]:
        """The groups that it is counted in: the deployment, and the tenant's use of the model."""
        return f"{self.model} at {self.instance}", f"{self.model} of {self.tenant}"


@dataclass
class HitShare:
    """A hit share and its reference. Not frozen: it counts.

    A CUSUM (Page 1954) of log likelihood ratios: of half the reference's share against all of it.
    """

    observations: int = 0
    reference: float = 0.0
    recent: float = 0.0
    sum_nats: float = 0.0
    has_fallen: bool = False

    def add(self, share: float) -> None:
        """Take the share of a prompt. It has fallen from when the sum reaches the alarm until it is
        back at zero.
        """
        self.observations += 1
        self.recent += (share - self.recent) * max(RECENT_WEIGHT, 1 / self.observations)
        if self.observations <= REFERENCE_SIZE:
            self.reference += (share - self.reference) / self.observations
            return
        self.sum_nats = min(ALARM_NATS, max(0.0, self.sum_nats + self._ratio(share)))
        self.has_fallen = self.sum_nats >= ALARM_NATS or (self.has_fallen and self.sum_nats > 0)

    def _ratio(self, share: float) -> float:
        usual = (self.reference * REFERENCE_SIZE + 1.0) / (REFERENCE_SIZE + 2.0)
        if_lost = math.log((1.0 - usual / 2.0) / (1.0 - usual))
        return share * math.log(0.5) + (1.0 - share) * if_lost


@dataclass
class _Group:
    """The prompts of a group. Not frozen: it counts."""

    hits: HitShare = field(default_factory=HitShare)
    losses: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=RECENT_LOSSES))
    """(cause, micro-dollars) of the latest losses."""
    reported_unix_s: float = 0.0

    def add(self, use: PrefixUse, unix_s: float) -> bool:
        """Count a prompt; whether a fall is to be reported now. One that lost nothing reports
        none.
        """
        self.hits.add(use.share)
        if not use.cause:
            return False
        self.losses.append((use.cause, use.lost_microusd))
        if not self.hits.has_fallen or unix_s - self.reported_unix_s < REPEAT_AFTER_S:
            return False
        self.reported_unix_s = unix_s
        return True

    @property
    def commonest(self) -> tuple[str, int, int]:
        """(cause, how many of the latest losses it has caused, what they cost)."""
        counted = Counter(cause for cause, _ in self.losses)
        cause, times = counted.most_common(1)[0] if counted else ("", 0)
        return cause, times, sum(cost for other, cost in self.losses if other == cause)


class PrefixHits:
    """A detector; see `Detector`. Beyond `max_groups`, the group without a prompt for longest is
    forgotten.
    """

    def __init__(self, max_groups: int = MAX_GROUPS) -> None:
        self._groups: BoundedMap[str, _Group] = BoundedMap(max_groups)

    def __len__(self) -> int:
        return len(self._groups)

    def observe_request(self, request: SettledRequest) -> Sequence[Finding]:
        """Take what the prompts of a request read; a finding for each group whose share fell."""
        findings = []
        for use in prefix_uses(request):
            for subject in use.subjects:
                group = self._groups.get(subject) or _Group()
                self._groups.put(subject, group)
                if group.add(use, request.end_unix_s):
                    findings.append(_finding(subject, group, use, request))
        return findings


def prefix_uses(request: SettledRequest) -> Iterator[PrefixUse]:
    """The prompts of a request whose prefix a provider's cache could have held, by the receipts of
    answers that were computed.
    """
    for span in request.tree.spans:
        if semconv.REQUEST_ID in span.attributes and semconv.INSTANCE in span.attributes:
            use = _use(span, request)
            if use.cached_tokens + use.lost_tokens > 0:
                yield use


def _use(span: SpanView, request: SettledRequest) -> PrefixUse:
    attributes = span.attributes

    def number(name: str) -> int:
        return max(0, int(attributes.get(name, 0)))

    return PrefixUse(
        span.source.service,
        str(attributes.get(semconv.RESPONSE_MODEL, "")),
        str(attributes.get(semconv.INSTANCE, "")),
        str(attributes.get(semconv.TENANT, "")) or request.summary.tenant,
        number(semconv.CACHED_TOKENS),
        number(semconv.PREFIX_LOST_TOKENS),
        number(semconv.PREFIX_LOST_MICROUSD),
        str(attributes.get(semconv.PREFIX_LOSS, "")),
    )


def _finding(subject: str, group: _Group, use: PrefixUse, request: SettledRequest) -> Finding:
    now, reference = group.hits.recent, group.hits.reference
    cause, times, microusd = group.commonest
    text = (
        f"{subject}: {now:.0%} of prompts' prefixes are read from the provider's cache where "
        f"{reference:.0%} were"
    )
    if cause:
        text += (
            f"; the commonest cause is {IN_WORDS.get(cause, cause.replace('_', ' '))}, in {times} "
            f"of the last {len(group.losses)} losses"
        )
        text += f", which cost ${microusd / 1e6:,.6f}" if microusd else ""
    return Finding(
        use.service,
        subject,
        "prefixes",
        request.end_unix_s,
        severity=SEVERITY,
        text=text,
        contributions=(Contribution(FEATURE, 1.0, now, reference),),
        trace_ids=(request.summary.trace_id.hex(),),
    )


IN_WORDS: Mapping[str, str] = {
    "clock": "a time in the prompt",
    "date": "a date in the prompt",
    "request_id": "an identifier of the request in the prompt",
    "session_id": "an identifier of the session in the prompt",
    "counter": "a number in the prompt that changes",
    "model": "another model",
    "parameter": "a changed parameter",
    "moved": "another instance than before",
    "expired": "a pause longer than the provider keeps prefixes",
    "evicted": "the provider, which did not keep it",
}
"""Causes in words, where their name does not say enough."""
