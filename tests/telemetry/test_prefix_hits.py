"""A fall of the share of prefixes that providers' caches are read: one incident that says why."""

from __future__ import annotations

from penstock.otel import attributes as semconv
from penstock.telemetry.detection.incidents import Finding
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.detection.prefix_hits import REPEAT_AFTER_S, PrefixHits

from .requests import named, settled_request

EVERY_S = 5.0


class Calls:
    """A prompt every five seconds, of one model at one instance unless said otherwise."""

    def __init__(self, hits: PrefixHits | None = None) -> None:
        self.hits, self.at_s = PrefixHits() if hits is None else hits, 0.0
        self.pipeline = DetectionPipeline()

    def observe(
        self, count: int, cached: int, lost: int = 0, cause: str = "", **labels: str
    ) -> list[Finding]:
        """So many prompts that read and lost so many tokens."""
        findings: list[Finding] = []
        for _ in range(count):
            self.at_s += EVERY_S
            said = {
                semconv.REQUEST_ID: "r",
                semconv.RESPONSE_MODEL: "chat",
                semconv.INSTANCE: "up",
                semconv.TENANT: "acme",
                semconv.CACHED_TOKENS: cached,
                **({semconv.PREFIX_LOSS: cause, semconv.PREFIX_LOST_TOKENS: lost} if lost else {}),
                **({semconv.PREFIX_LOST_MICROUSD: 10} if lost else {}),
                **labels,
            }
            attributes = {named(name): value for name, value in said.items() if value != ""}
            request = settled_request(self.at_s, 10.0, **attributes)
            findings += self.hits.observe_request(request)
            self.pipeline.observe_request(request)
        return findings


def test_a_fall_is_found_for_the_deployment_and_the_tenant_and_names_its_commonest_cause() -> None:
    calls = Calls()
    assert calls.observe(60, 2_000) == []
    assert calls.observe(1, 0, 2_000, "evicted") == [], "one may be chance"
    findings = calls.observe(8, 0, 2_000, "clock")
    assert [finding.subject for finding in findings] == ["chat at up", "chat of acme"]
    first = findings[0]
    assert (first.service, first.detector) == ("router", "prefixes")
    assert "the commonest cause is a time in the prompt, in " in first.text
    assert first.contributions[0].value < first.contributions[0].expected == 1.0
    [incident] = calls.pipeline.incidents.newest_first()
    assert incident.text == first.text
    assert {part.subject for part in incident.contributions} == {"chat at up", "chat of acme"}


def test_the_finding_is_repeated_while_the_share_stays_low_and_not_after() -> None:
    calls = Calls()
    calls.observe(60, 2_000)
    calls.observe(8, 0, 2_000, "clock")
    prompts_a_minute = round(REPEAT_AFTER_S / EVERY_S)
    assert len(calls.observe(prompts_a_minute, 0, 2_000, "clock")) == 2
    calls.observe(60, 2_000)
    assert calls.observe(100, 2_000) == []


def test_a_share_that_always_was_low_or_rises_is_no_fall() -> None:
    calls = Calls()
    assert calls.observe(200, 200, 1_800, "clock") == []
    assert calls.observe(200, 2_000) == []


def test_a_few_lost_prefixes_among_many_are_no_fall() -> None:
    calls = Calls()
    for _ in range(60):
        assert calls.observe(19, 2_000) == []
        assert calls.observe(1, 0, 2_000, "expired") == []


def test_only_one_of_two_deployments_falls() -> None:
    calls = Calls()
    for _ in range(60):
        calls.observe(1, 2_000)
        calls.observe(1, 2_000, **{semconv.INSTANCE: "other", semconv.TENANT: "firm"})
    findings = calls.observe(8, 0, 2_000, "tools_reordered")
    assert {finding.subject for finding in findings} == {"chat at up", "chat of acme"}
    assert "the commonest cause is tools reordered" in findings[0].text


def test_reused_answers_and_prompts_without_a_prefix_are_not_counted() -> None:
    hits = PrefixHits()
    calls = Calls(hits)
    calls.observe(5, 2_000, **{semconv.INSTANCE: ""})
    calls.observe(5, 0)
    assert len(hits) == 0


def test_no_more_groups_are_kept_than_their_bound() -> None:
    hits = PrefixHits(max_groups=4)
    calls = Calls(hits)
    for number in range(20):
        calls.observe(1, 2_000, **{semconv.TENANT: f"tenant-{number}"})
    assert len(hits) == 4
