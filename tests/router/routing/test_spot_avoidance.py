"""Keeping streams off spot instances while a safer one is free."""

from __future__ import annotations

from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.routing.fleet import Fleet
from penstock.router.routing.spot_avoidance import OLD_S, unsafe_for_streams

from .fleets import fleet, member

SPOT = pb.Instance(tenancy=pb.TENANCY_SPOT)
NOW = OLD_S + 60.0
SINCE = {"paid": 0.0, "old": 0.0, "young": OLD_S}
"""When each instance registered."""


def unsafe(known: Fleet, *tried: str) -> frozenset[str]:
    """Whom a stream is not given, of one paid instance, an old spot and a young one."""
    instances = {"paid": pb.Instance(), "old": SPOT, "young": SPOT}
    return unsafe_for_streams(known, instances, SINCE, NOW, tried)


def three(*busy: str) -> Fleet:
    """The three instances, each of one slot."""
    return fleet(*(member(name, own=int(name in busy)) for name in ("paid", "old", "young")))


def test_paid_is_safer_than_old_spot_and_old_spot_than_young() -> None:
    assert unsafe(three()) == {"old", "young"}
    assert unsafe(three("paid")) == {"young"}
    assert unsafe(three("paid", "old")) == frozenset()


def test_where_none_is_free_a_stream_may_go_anywhere() -> None:
    assert unsafe(three("paid", "old", "young")) == frozenset()


def test_an_instance_that_cannot_take_the_stream_is_not_free() -> None:
    assert unsafe(three(), "paid") == {"young"}
    for state in ({"lost": True}, {"leaving": True}, {"ejected_until": NOW + 1.0}):
        known = three()
        for attribute, value in state.items():
            setattr(known.members[0], attribute, value)
        assert unsafe(known) == {"young"}, state


def test_equally_safe_instances_are_all_taken() -> None:
    all_spot = dict.fromkeys(("paid", "old", "young"), SPOT)
    assert unsafe_for_streams(three(), all_spot, {}, NOW, ()) == frozenset()
