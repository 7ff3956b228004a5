"""The supervisor's plan against deploy/services.yaml: processes, ports, addresses, order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from penstock.service.default_models import CHAT
from penstock.stack import ports
from penstock.stack.cell import DRAIN_ORDER
from penstock.stack.plan import StackPlan
from penstock.stack.process import Program
from penstock.stack.shapes import BESIDE, CELL, Shape
from penstock.stack.workers import Workers
from services_file import FILE, differences, host_port, listen_variables, package_of

PACKAGES = {package_of(service): service for service in FILE.services}
SECOND_INSTANCE, CHAT_INSTANCE = "inference-2", "generate"


def programs_in(shape: Shape, tmp_path: Path) -> list[Program]:
    """Every process of a whole stack on the documented ports, in the order of starting."""
    plan = StackPlan(
        addresses=ports.documented(),
        home=tmp_path,
        sockets=tmp_path,
        config_file=tmp_path / "penstock.yaml",
        token="token",
        upstream_name="first",
        shape=shape,
        chat=True,
    )
    return [program for stage in plan.stages() for program in stage]


@pytest.fixture
def programs(tmp_path: Path) -> list[Program]:
    """The processes of a stack of separate services."""
    return programs_in("processes", tmp_path)


@pytest.fixture
def with_cell(tmp_path: Path) -> list[Program]:
    """The processes of a stack with a cell."""
    return programs_in("cell", tmp_path)


def settings_in(program: Program, service: str) -> dict[str, str]:
    """The variables of one service of a process that runs several, as it would have them alone."""
    prefix = f"PENSTOCK_{package_of(service).upper()}_"
    own = {
        f"PENSTOCK_{name.removeprefix(prefix)}": value
        for name, value in program.env.items()
        if name.startswith(prefix)
    }
    return {**program.env, **own}


def service_of(program: Program) -> str:
    """The service that a process runs, or its own name for a store."""
    module = program.command[-1]
    return PACKAGES.get(module.removeprefix("penstock."), program.name)


def services_by_address(programs: list[Program]) -> dict[str, str]:
    return {
        program.env["PENSTOCK_LISTEN"]: service_of(program)
        for program in programs
        if "PENSTOCK_LISTEN" in program.env
    }


def test_the_supervisor_starts_every_service_and_both_stores(programs: list[Program]) -> None:
    assert {service_of(program) for program in programs} == {
        *FILE.services,
        "redis-ledger",
        "redis-cache",
    }


def test_every_process_has_the_ports_and_addresses_of_its_entry(programs: list[Program]) -> None:
    services = services_by_address(programs)
    problems = [
        problem
        for program in programs
        if "PENSTOCK_LISTEN" in program.env and program.name not in (SECOND_INSTANCE, CHAT_INSTANCE)
        for problem in differences(service_of(program), program.env, services.__getitem__)
    ]
    assert problems == []


def test_the_second_instance_has_the_next_port(programs: list[Program]) -> None:
    (second,) = (program for program in programs if program.name == SECOND_INSTANCE)
    first = FILE.services["inference-onnx-quantized"].port
    assert listen_variables(second.env) == {"listen": first + 1}


def test_the_chat_model_has_an_instance_and_a_port_of_its_own(programs: list[Program]) -> None:
    (chat,) = (program for program in programs if program.name == CHAT_INSTANCE)
    assert chat.env["PENSTOCK_MODELS"] == CHAT
    assert chat.env["PENSTOCK_INSTANCE_ID"] == CHAT_INSTANCE
    assert listen_variables(chat.env) == {"listen": ports.PORTS[CHAT_INSTANCE]}


def test_the_ledger_and_cached_answers_have_stores_of_their_own(programs: list[Program]) -> None:
    for program in programs:
        if program.command[-1].removeprefix("penstock.") in PACKAGES:
            for store in ("ledger", "cache"):
                url = program.env[f"PENSTOCK_{store.upper()}_URL"]
                assert url.endswith(f"/{store}.sock"), program.name


def test_a_store_that_others_run_is_not_started(tmp_path: Path) -> None:
    plan = StackPlan(ports.documented(), tmp_path, tmp_path, tmp_path / "penstock.yaml", "token")
    outside = replace(plan, external_ledger_url="redis://elsewhere:6379/0")
    (stores, *others) = outside.stages()
    assert [program.name for program in stores] == ["redis-cache"]
    assert others[0][0].env["PENSTOCK_LEDGER_URL"] == "redis://elsewhere:6379/0"
    neither = replace(outside, external_cache_url="redis://elsewhere:6379/1")
    assert neither.stages()[0][0].name == "telemetry"


def test_a_process_starts_after_the_services_that_it_calls(programs: list[Program]) -> None:
    started: set[str] = set()
    # The console shows whoever answers, so it need not wait for the scaler.
    for program in programs:
        service = service_of(program)
        entry = FILE.services.get(service)
        if entry is not None and service != "console":
            assert entry.calls <= started, program.name
        started.add(service)


def test_every_documented_port_belongs_to_a_process(programs: list[Program]) -> None:
    opened = {port for program in programs for port in listen_variables(program.env).values()}
    assert opened == {host_port(address)[1] for address in ports.documented().values()}


@pytest.mark.parametrize(("process", "services"), [("cell", CELL), ("beside", BESIDE)])
def test_a_service_in_a_shared_process_has_the_settings_of_its_own(
    with_cell: list[Program], programs: list[Program], process: str, services: tuple[str, ...]
) -> None:
    (shared,) = (program for program in with_cell if program.name == process)
    alone = {program.name: program for program in programs}
    assert shared.command[-1] == ",".join(services)
    for service in services:
        assert alone[service].env.items() <= settings_in(shared, service).items()


def test_several_cells_differ_in_their_name_and_own_address_only(tmp_path: Path) -> None:
    one = StackPlan(
        ports.documented(), tmp_path, tmp_path, tmp_path / "penstock.yaml", "token", shape="cell"
    )
    several = replace(one, workers=2)
    (alone,), pair = one.cells(), several.cells()
    own = {"PENSTOCK_CELL", "PENSTOCK_CELL_ADDRESS"}
    assert not own & alone.env.keys()
    assert [cell.name for cell in pair] == ["cell-1", "cell-2"]
    assert [cell.env["PENSTOCK_CELL"] for cell in pair] == ["cell-1", "cell-2"]
    addresses = [f"unix:{tmp_path}/cell-1.sock", f"unix:{tmp_path}/cell-2.sock"]
    assert [cell.env["PENSTOCK_CELL_ADDRESS"] for cell in pair] == addresses
    for cell in pair:
        assert {name: cell.env[name] for name in cell.env.keys() - own} == alone.env
    beside = next(p for stage in several.stages() for p in stage if p.name == "beside")
    assert beside.env["PENSTOCK_BATCHER_ADDRESS"] == ",".join(addresses)


def test_cells_for_other_machines_have_ports_of_their_own() -> None:
    assert Workers(3, Path("/tmp"), "10.0.0.5:7090").addresses() == (
        "10.0.0.5:7090",
        "10.0.0.5:7091",
        "10.0.0.5:7092",
    )


def test_what_a_scaler_starts_inherits_the_same_in_both_shapes(
    with_cell: list[Program], programs: list[Program]
) -> None:
    (shared,) = (program for program in with_cell if program.name == "beside")
    (alone,) = (program for program in programs if program.name == "scaler")
    names = ("CONFIG_FILE", "HOME", "INTERNAL_TOKEN", "OTLP_ENDPOINT", "PROFILE", "ROUTER_ADDRESS")
    for name in names:
        assert shared.env[f"PENSTOCK_{name}"] == alone.env[f"PENSTOCK_{name}"]


def test_both_shapes_run_the_same_services(
    with_cell: list[Program], programs: list[Program]
) -> None:
    shared = {"cell": CELL, "beside": BESIDE}
    names = [name for program in with_cell for name in shared.get(program.name, (program.name,))]
    assert sorted(names) == sorted(program.name for program in programs)


def test_services_of_one_process_drain_before_those_they_call() -> None:
    assert set(DRAIN_ORDER) == set(FILE.services)
    for name in DRAIN_ORDER:
        entry = FILE.services[name]
        later = DRAIN_ORDER[DRAIN_ORDER.index(name) :]
        assert entry.registers or entry.calls <= set(later), name
    assert DRAIN_ORDER[-1] == FILE.every_service.exports_to
