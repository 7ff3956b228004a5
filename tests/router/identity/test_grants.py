"""What a grant permits: models, kinds of task, priorities."""

from __future__ import annotations

import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.identity.grants import Grant, Permitted, Scope, permitted_models, visible
from penstock.rpc.call import Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason

SMALL = Scope(("small-*", "exact"), frozenset(("embed",)))


def options(model: str = "", *fallbacks: str) -> pb.CallOptions:
    return pb.CallOptions(model=model, fallback_models=fallbacks)


@pytest.mark.parametrize(
    ("name", "covered"),
    [("small-1", True), ("exact", True), ("exactly", False), ("large", False), ("", False)],
)
def test_a_scope_covers_the_names_it_lists_and_those_that_begin_so(
    name: str, covered: bool
) -> None:
    assert SMALL.covers_model(name) is covered
    assert Scope().covers_model(name)


def test_models_of_a_chain_that_are_out_of_scope_are_left_out() -> None:
    chain = ("small-1", "large", "exact")
    assert permitted_models(SMALL, "embed", options(), chain) == Permitted(("small-1", "exact"))


@pytest.mark.threat("model out of scope")
@pytest.mark.parametrize(
    ("asked", "kind", "chain"),
    [
        (options("large"), "embed", ("large", "small-1")),
        (options("small-1", "large"), "embed", ("small-1", "large")),
        (options(), "embed", ("large",)),
        (options("auto"), "embed", ("large",)),
        (options("small-1"), "generate", ("small-1",)),
    ],
)
def test_what_is_out_of_scope_is_refused(
    asked: pb.CallOptions, kind: str, chain: tuple[str, ...]
) -> None:
    refusal = permitted_models(SMALL, kind, asked, chain)
    assert isinstance(refusal, Fault)
    assert refusal.reason is Reason.PERMISSION_DENIED


def test_only_models_in_scope_are_visible() -> None:
    assert visible(SMALL, {"large", "small-2", "small-1"}) == ["small-1", "small-2"]


@pytest.mark.parametrize(("asked", "given"), [(0, 2), (1, 1), (2, 2), (3, 2), (4, 2)])
def test_a_priority_is_normal_at_most_where_nothing_else_is_said(asked: int, given: int) -> None:
    assert Grant(Principal("acme")).priority(asked) == given
