"""The performance score as people and programs read it: states, signals and their ages as
protos.
"""

from __future__ import annotations

import math

from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.instance_choice import Pick, Row


def state_of(member: Member | None, now: float, fleet: Fleet | None = None) -> pb.InstanceState:
    """The state of an instance in the router's eyes."""
    if member is None or member.lost:
        return pb.INSTANCE_STATE_LOST
    if member.leaving:
        return pb.INSTANCE_STATE_DRAINING
    if now < member.ejected_until:
        return pb.INSTANCE_STATE_EJECTED
    joined = member.successes >= (fleet.health.successes_to_join if fleet else 3)
    return pb.INSTANCE_STATE_READY if joined else pb.INSTANCE_STATE_JOINING


def candidates_out(pick: Pick, members: dict[str, Member], now: float) -> list[pb.Candidate]:
    """The candidates of a pick, best first and the ones left out last; ages in milliseconds at the
    pick, −1 without data.
    """
    rows = [
        _row(row, pick, members, now) for row in sorted(pick.rows, key=lambda row: (row[1], row[0]))
    ]
    rows += [
        pb.Candidate(instance_id=name, filtered_reason=why, state=state_of(members.get(name), now))
        for name, why in sorted(pick.left_out)
    ]
    return rows


def _row(row: Row, pick: Pick, members: dict[str, Member], now: float) -> pb.Candidate:
    name, score, own, others, speed, concurrency, load_at = row
    out = pb.Candidate(instance_id=name, score=score, state=state_of(members.get(name), now))
    age_ms = -1 if math.isinf(load_at) else round((pick.at - load_at) * 1e3)
    for signal, value, age in (
        ("in_flight_own", own, 0),
        ("in_flight_others", others, age_ms),
        ("speed", speed, 0),
        ("concurrency", concurrency, age_ms),
    ):
        out.signals.add(name=signal, value=value, age_ms=age)
    return out
