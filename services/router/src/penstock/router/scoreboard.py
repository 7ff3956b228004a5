"""The performance score as people and programs read it: states, signals and their ages as protos."""

from __future__ import annotations

from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.policy import Candidate, Instance


def state_of(instance: Instance | None, now: float) -> pb.InstanceState:
    """The state of an instance in the router's eyes."""
    if instance is None or instance.lost:
        return pb.INSTANCE_STATE_LOST
    if instance.draining:
        return pb.INSTANCE_STATE_DRAINING
    if now < instance.ejected_until:
        return pb.INSTANCE_STATE_EJECTED
    return pb.INSTANCE_STATE_JOINING if instance.joining else pb.INSTANCE_STATE_READY


def candidate_out(candidate: Candidate, instance: Instance | None, now: float) -> pb.Candidate:
    """A candidate with its inputs; ages in milliseconds, −1 where there has been no data."""
    row = pb.Candidate(
        instance_id=candidate.instance_id,
        score=candidate.score,
        filtered_reason=candidate.filtered,
        state=state_of(instance, now),
    )
    for name, (value, age_s) in candidate.signals.items():
        row.signals.add(name=name, value=value, age_ms=-1 if age_s < 0 else round(age_s * 1e3))
    return row
