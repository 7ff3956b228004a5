"""Replays a demand trace: what the scaler would have decided, step by step, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from penstock.scaler.forecast.features import Sample
from penstock.scaler.pools.planner import Decision, LiveState, PoolPlanner

MAX_TICKS = 60
TICK_S = 15.0
"""A serving scaler decides every few seconds, so within a step of a trace it may decide again as
long as its rates hold it back.
"""


@dataclass(frozen=True)
class Summary:
    """What a replay came to. Field names are keys of the command's output.

    Args:
        short_share: share of steps with more work than capacity.
        over_provision: unused capacity over the work.
        coverage: share of samples at or below the forecast quantile.
        fallen_back_share: share of steps in which the reactive rules decided.
    """

    steps: int
    short_share: float
    over_provision: float
    mean_instances: float
    peak_instances: int
    coverage: float
    fallen_back_share: float


def replay(planner: PoolPlanner, samples: list[Sample]) -> tuple[list[Decision], Summary]:
    """Feed samples to a planner and obey its decisions; returns them and their summary.

    A decision takes effect after the horizon; gaps in the samples count as no work.
    """
    decisions: list[Decision] = []
    interval_s = planner.config.interval_s
    current = max(planner.config.min_instances, 1)
    fallen_back = 0
    for sample in samples:
        now_s = sample.start_s + interval_s
        planner.take([sample], now_s)
        if planner.rebuild_due:
            planner.install(planner.rebuild())
        for forecaster in planner.forecasts.due():
            forecaster.adopt(forecaster.train())
        decision = _decide_step(planner, current, now_s)
        decisions.append(decision)
        current = decision.wanted
        fallen_back += planner.forecasts.fallen_back
    return decisions, _summary(planner, samples, decisions, fallen_back)


def _decide_step(planner: PoolPlanner, current: int, now_s: float) -> Decision:
    """Decide again and again within the step, as a serving scaler does.

    Returns the last decision, as a change of what was before the step.
    """
    evaluation = planner.evaluate(LiveState(current, current), now_s)
    first = evaluation.decision
    planner.state = evaluation.state
    for tick in range(1, min(MAX_TICKS, int(planner.config.interval_s // TICK_S))):
        last = evaluation.decision
        if last.wanted == last.current and not evaluation.is_deferred:
            break
        live = LiveState(last.wanted, last.wanted)
        evaluation = planner.evaluate(live, now_s + tick * TICK_S)
        planner.state = evaluation.state
    last = evaluation.decision
    reason = last.reason if last.wanted != first.wanted else first.reason
    return replace(last, current=current, made_s=first.made_s, reason=reason)


def _summary(
    planner: PoolPlanner, samples: list[Sample], decisions: list[Decision], fallen_back: int
) -> Summary:
    instance_work = planner.nominal_capacity * planner.config.interval_s
    pairs = [
        (sample.work, decision.wanted * instance_work)
        for sample, decision in in_effect(samples, decisions, planner.ahead)
    ]
    work = sum(need for need, _ in pairs)
    unused = sum(max(0.0, capacity - need) for need, capacity in pairs)
    return Summary(
        steps=len(samples),
        short_share=sum(need > capacity for need, capacity in pairs) / max(1, len(pairs)),
        over_provision=unused / work if work else 0.0,
        mean_instances=sum(decision.wanted for decision in decisions) / len(decisions),
        peak_instances=max(decision.wanted for decision in decisions),
        coverage=planner.forecasts.coverage,
        fallen_back_share=fallen_back / len(samples),
    )


def in_effect(
    samples: list[Sample], decisions: list[Decision], ahead: int
) -> Iterator[tuple[Sample, Decision]]:
    """Yield each sample with the decision made `ahead` intervals before, which its work met."""
    yield from zip(samples[ahead:], decisions, strict=False)
