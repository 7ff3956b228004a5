"""The performance score as people and programs read it: states, signals and their ages."""

from __future__ import annotations

import math
from collections.abc import Mapping

from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.identity.grants import Grant
from penstock.router.routing.choice import Candidate, InstanceChoice
from penstock.router.routing.fleet import Health, Member

HEALTH = Health()


def state_of(member: Member | None, now: float) -> pb.InstanceState:
    """The state of an instance in the router's eyes."""
    if member is None or member.lost:
        return pb.INSTANCE_STATE_LOST
    if member.leaving:
        return pb.INSTANCE_STATE_DRAINING
    if now < member.ejected_until:
        return pb.INSTANCE_STATE_EJECTED
    if member.successes < HEALTH.successes_to_join:
        return pb.INSTANCE_STATE_JOINING
    return pb.INSTANCE_STATE_READY


def as_shown(instance: pb.Instance, grant: Grant) -> pb.Instance:
    """An instance as a caller may see it: without models that it may not use, and without addresses
    unless its key says so.
    """
    shown = pb.Instance()
    shown.CopyFrom(instance)
    if not grant.shows_addresses:
        shown.ClearField("address")
        shown.ClearField("batcher_address")
    del shown.models[:]
    shown.models.extend(model for model in instance.models if grant.scope.covers_model(model.name))
    return shown


def candidates_to_proto(
    choice: InstanceChoice, members: Mapping[str, Member], now: float
) -> list[pb.Candidate]:
    """The candidates of a choice, best first and those left out last; ages are milliseconds at the
    choice, −1 without data.
    """
    best_first = sorted(choice.candidates, key=lambda one: (one.score, one.instance_id))
    rows = [_row(one, choice.at, state_of(members.get(one.instance_id), now)) for one in best_first]
    for excluded in sorted(choice.excluded, key=lambda one: one.instance_id):
        state = state_of(members.get(excluded.instance_id), now)
        rows.append(
            pb.Candidate(
                instance_id=excluded.instance_id, filtered_reason=excluded.text, state=state
            )
        )
    return rows


def _row(candidate: Candidate, at: float, state: pb.InstanceState) -> pb.Candidate:
    row = pb.Candidate(instance_id=candidate.instance_id, score=candidate.score, state=state)
    age_ms = -1 if math.isinf(candidate.load_at) else round((at - candidate.load_at) * 1e3)
    row.signals.add(name="in_flight_own", value=candidate.own, age_ms=0)
    row.signals.add(name="in_flight_others", value=candidate.others, age_ms=age_ms)
    row.signals.add(name="speed", value=candidate.speed, age_ms=0)
    row.signals.add(name="concurrency", value=candidate.concurrency, age_ms=age_ms)
    return row
