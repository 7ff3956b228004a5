"""Keeping streams off spot instances, which may be taken away, while a safer one is free. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from penstock.api.router.v1 import router_pb2
from penstock.router.routing.fleet import Fleet
from penstock.service.purity import pure

OLD_S = 3_600.0
"""Spot that has lasted for an hour is likelier to last on than spot that has just come."""


@pure
def unsafe_for_streams(
    fleet: Fleet,
    instances: Mapping[str, router_pb2.Instance],
    since: Mapping[str, float],
    now: float,
    tried: Collection[str],
) -> frozenset[str]:
    """Instances that a stream should not be given: those less safe than the safest that is free.

    Empty where all are equally safe.

    Args:
        since: when each instance registered, by its id.
        tried: instances that this call is not given again.
    """
    risks = {
        member.id: _risk(instances[member.id], now - since.get(member.id, now))
        for member in fleet.members
    }
    if len(set(risks.values())) < 2:
        return frozenset()
    free = [
        risks[member.id]
        for member in fleet.members
        if not (member.lost or member.leaving or now < member.ejected_until or member.id in tried)
        and member.own < member.concurrency
    ]
    return (
        frozenset(name for name, risk in risks.items() if risk > min(free)) if free else frozenset()
    )


def _risk(instance: router_pb2.Instance, age_s: float) -> int:
    if instance.tenancy != router_pb2.TENANCY_SPOT:
        return 0
    return 1 if age_s >= OLD_S else 2
