"""The commands: help, settings that cannot be, and the tools beside the services."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.testkit.eventually import eventually

from .calls import Api, Caller
from .configuration import EMBEDDER
from .processes import Ended, command

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
SERVICES = (
    "router",
    "batcher",
    "cache",
    "limiter",
    "telemetry",
    "scaler",
    "console",
    "inference_onnx_quantized",
    "inference_upstream",
)
ANYWHERE = "127.0.0.1:0"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def helped() -> Mapping[str, Ended]:
    """`--help` of every service."""
    ended = await asyncio.gather(*(command(name, "--help") for name in SERVICES))
    return dict(zip(SERVICES, ended, strict=True))


@pytest.mark.parametrize("service", SERVICES)
async def test_help_names_every_variable_with_default_and_meaning(
    helped: Mapping[str, Ended], service: str
) -> None:
    ended = helped[service]
    assert (ended.status, ended.errors) == (0, "")
    assert f"python -m penstock.{service}" in ended.output
    rows = re.findall(r"^  (PENSTOCK_\w+) \(default: .+\)\n      \S", ended.output, re.MULTILINE)
    assert {"PENSTOCK_LISTEN", "PENSTOCK_PROFILE", "PENSTOCK_CONFIG_FILE"} <= set(rows)
    assert "PENSTOCK_INTERNAL_TOKEN" in rows


@pytest.mark.parametrize("service", ["router", "inference_onnx_quantized", "console"])
async def test_settings_that_cannot_be_are_a_line_each_and_two(service: str) -> None:
    ended = await command(service, listen=ANYWHERE, profile="holiday", drain_s="soon")
    assert (ended.status, ended.output) == (2, "")
    lines = ended.errors.splitlines()
    name = f"penstock {service.replace('_', '-')}: "
    assert all(line.startswith(name) for line in lines)
    assert [line.removeprefix(name).split(":")[0] for line in lines] == [
        "PENSTOCK_PROFILE",
        "PENSTOCK_DRAIN_S",
    ]


@pytest.mark.parametrize(
    ("service", "text", "named"),
    [
        ("router", "limts: {}\n", ["limts"]),
        ("router", "keys: {api: [{id: x, organisation: y, sha256: zz}]}\n", ["keys.api.0.sha256"]),
        (
            "limiter",
            "limits: {rules: [{name: X Y, colour: red}]}\n",
            [
                "limits.rules.0.name",
                "limits.rules.0.kind",
                "limits.rules.0.counts",
                "limits.rules.0.limit",
                "limits.rules.0.colour",
            ],
        ),
    ],
)
async def test_a_file_that_cannot_be_is_refused_with_every_bad_key(
    tmp_path: Path, service: str, text: str, named: list[str]
) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text(text)
    stores = {"limiter": "ledger_url", "cache": "cache_url"}
    store = {stores[service]: f"unix://{tmp_path}/none"} if service in stores else {}
    ended = await command(service, listen=ANYWHERE, config_file=str(path), **store)
    assert ended.status == 2
    lines = ended.errors.splitlines()
    assert len(lines) == len(named)
    for line, key in zip(lines, named, strict=True):
        assert str(path) in line
        assert key in line


async def test_what_a_service_cannot_do_without_is_said_in_a_line(tmp_path: Path) -> None:
    told = {
        "limiter": "PENSTOCK_LEDGER_URL",
        "cache": "PENSTOCK_CACHE_URL",
        "inference_onnx_quantized": EMBEDDER,
        "inference_upstream": "no upstream",
    }
    alone = {"listen": ANYWHERE, "home": str(tmp_path)}
    for name, ended in zip(
        told, await asyncio.gather(*(command(name, **alone) for name in told)), strict=True
    ):
        assert ended.status == 2
        (line,) = ended.errors.splitlines()
        assert told[name] in line


async def test_a_port_in_use_is_named(api: Api) -> None:
    address = api.system.addresses["batcher"]
    ended = await command("batcher", listen=address)
    assert ended.status == 2
    last = ended.errors.splitlines()[-1]  # gRPC's own log stands before it
    assert last.startswith("penstock batcher: ")
    assert address in last
    assert "PENSTOCK_LISTEN" in last


async def test_the_stack_says_what_it_lacks_and_how_it_is_called(tmp_path: Path) -> None:
    bare, help_ = await asyncio.gather(
        command("stack", "--home", str(tmp_path), "up"), command("stack", "--help")
    )
    assert bare.status == 2
    assert "make model" in bare.errors
    assert help_.status == 0
    for name in ("up", "redis", "demo"):
        assert re.search(rf"^\s+{name}\s", help_.output, re.MULTILINE)


async def test_a_model_is_checked_and_its_card_shown(home: Path, tmp_path: Path) -> None:
    shown, missing = await asyncio.gather(
        command("models", "show", home=str(home)), command("models", "show", home=str(tmp_path))
    )
    assert shown.status == 0
    assert shown.output.startswith(f"# {EMBEDDER} 1\n")
    assert "embed, classify, rerank, infer" in shown.output
    assert missing.status == 2
    assert len(missing.errors.splitlines()) == 1


async def test_a_trace_of_demand_is_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{minute * 60},{100 + minute % 10 * 10}" for minute in range(60)]
    trace.write_text("\n".join(["time,work", *rows]))
    ended = await command("scaler", "replay", str(trace))
    assert ended.status == 0
    last = json.loads(ended.output.splitlines()[-1])
    assert (last["trace"], last["steps"]) == ("trace.csv", 60)
    assert 0 <= last["coverage"] <= 1


async def test_a_trace_is_drawn_in_the_terminal(caller: Caller) -> None:
    api = caller.api
    trace_id = (await caller.embed("drawn", cache={"bypass": True})).receipt.trace_id

    async def arrived() -> bool:
        request = telemetry_pb2.SearchTracesRequest(tenant=caller.key)
        answer = await api.telemetry.SearchTraces(request, metadata=api.token)
        services = {service for row in answer.traces for service in row.services}
        return {"router", "batcher", "inference-onnx-quantized"} <= services

    await eventually(arrived)
    telemetry = {
        "telemetry": api.system.addresses["telemetry"],
        "internal_token": api.system.token,
    }
    drawn, listed, unknown = await asyncio.gather(
        command("cli", "trace", trace_id[:12], **telemetry),
        command("cli", "trace", "--limit", "1000", **telemetry),
        command("cli", "trace", "f" * 32, **telemetry),
    )
    assert drawn.status == 0
    assert trace_id in drawn.output
    for service in ("router", "batcher", "inference"):
        assert service in drawn.output
    assert listed.status == 0
    (row,) = [line for line in listed.output.splitlines() if line.startswith(trace_id[:12])]
    assert "Embed" in row
    assert unknown.status == 1
    assert "penstock: trace_id: no such trace is held" in unknown.errors
