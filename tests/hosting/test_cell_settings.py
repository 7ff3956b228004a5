"""The settings of services that share a process and its environment."""

from __future__ import annotations

import os

import pytest
from penstock.hosting.cell import Member
from penstock.hosting.cell_settings import load_members
from penstock.service.program import CannotStart
from penstock.service.settings import BadConfig, own_variables
from penstock.stack.cell import DRAIN_ORDER, assemblies_of

ALL = ",".join(DRAIN_ORDER)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)


def members_of(services: str) -> dict[str, Member]:
    return {member.assembly.name: member for member in load_members(assemblies_of(services))}


def test_a_services_own_variable_comes_before_the_shared_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_LEASE_MS", "4000")
    monkeypatch.setenv("PENSTOCK_LIMITER_LEASE_MS", "9000")
    members = members_of("router,limiter")
    lease_ms = {name: member.settings.model_dump()["lease_ms"] for name, member in members.items()}
    assert lease_ms == {"router": 4000, "limiter": 9000}


def test_services_of_a_cell_find_each_other_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE_LISTEN", "127.0.0.1:9999")
    monkeypatch.setenv("PENSTOCK_LIMITER_ADDRESS", "limiter.elsewhere:7072")
    settings = members_of("batcher,cache,limiter,router")["router"].settings.model_dump()
    addresses = {name: settings[f"{name}_address"] for name in ("batcher", "cache", "limiter")}
    assert addresses == {
        "batcher": "127.0.0.1:7073",
        "cache": "127.0.0.1:9999",
        "limiter": "limiter.elsewhere:7072",
    }


def test_a_collector_in_the_cell_is_exported_to() -> None:
    members = members_of("telemetry,scaler")
    assert members["scaler"].settings.otlp_endpoint == members["telemetry"].settings.listen
    assert members["telemetry"].settings.otlp_endpoint == ""


def test_every_bad_variable_of_every_service_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LISTEN", "127.0.0.1:7070")
    monkeypatch.setenv("PENSTOCK_LIMITER_LEASE_MS", "soon")
    monkeypatch.setenv("PENSTOCK_MAX_ATTEMPTS", "none")
    with pytest.raises(BadConfig) as caught:
        members_of("router,limiter")
    names = [problem.partition(":")[0] for problem in caught.value.problems]
    assert names == ["PENSTOCK_LISTEN", "PENSTOCK_MAX_ATTEMPTS", "PENSTOCK_LIMITER_LEASE_MS"]


def test_services_are_given_in_any_order_and_drain_callers_first() -> None:
    names = [each.name for each in assemblies_of("batcher, cache,router")]
    assert names == ["router", "cache", "batcher"]


@pytest.mark.parametrize("services", ["router,rooter", "router,router", ""])
def test_unknown_and_repeated_services_are_refused(services: str) -> None:
    with pytest.raises(CannotStart, match="known are batcher, cache"):
        assemblies_of(services)


def test_no_services_own_variable_is_the_shared_variable_of_another() -> None:
    assemblies = assemblies_of(ALL)
    shared = {
        f"PENSTOCK_{field}".upper() for each in assemblies for field in each.settings.model_fields
    }
    own = {name for each in assemblies for name in own_variables(each.settings, each.name).values()}
    assert not shared & own
