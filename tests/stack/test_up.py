"""What `up` and the command line refuse: one line that says what to do, and exit status 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from penstock.service.profiles import PROFILES, Profile
from penstock.service.program import CannotStart
from penstock.stack import ports
from penstock.stack.plan import StackPlan
from penstock.stack.stack import internal_token


def run_command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.stack", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def test_a_port_in_use_is_named_and_free_ones_are_not() -> None:
    free = dict(list(ports.free().items())[:3])
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        busy = f"{ports.LOOPBACK}:{server.getsockname()[1]}"
        assert ports.in_use({**free, "cache": busy}) == {"cache": busy}
    assert ports.in_use({"cache": busy}) == {}


def test_without_a_model_the_message_names_make_model(tmp_path: Path) -> None:
    ended = run_command("--home", str(tmp_path), "up")
    message = f"penstock.stack: model all-MiniLM-L6-v2 is not in {tmp_path}; run `make model`\n"
    assert (ended.returncode, ended.stderr) == (2, message)


def test_a_socket_path_that_is_too_long_is_refused_without_a_traceback(tmp_path: Path) -> None:
    socket_path = str(tmp_path / ("x" * 120))
    ended = run_command("--home", str(tmp_path), "redis", "ledger", "--socket", socket_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("penstock.stack: socket path longer than 107 bytes")
    assert ended.stderr.count("\n") == 1


def test_a_home_that_is_not_writable_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file, not a folder")
    with pytest.raises(CannotStart, match=f"{home}.*PENSTOCK_HOME"):
        internal_token(home)


@pytest.mark.parametrize(
    ("variables", "services", "message"),
    [
        ({"PENSTOCK_WORKERS": "none"}, "router", "'none' is no number from 1 to 64"),
        ({"PENSTOCK_WORKERS": "0"}, "router", "'0' is no number from 1 to 64"),
        ({"PENSTOCK_WORKERS": "2"}, "router,telemetry", "'telemetry' cannot run several times"),
        ({"PENSTOCK_WORKERS": "2"}, "limiter,batcher", "several batchers behind one address need"),
        (
            {"PENSTOCK_WORKERS": "2", "PENSTOCK_WORKERS_LISTEN": "7090"},
            "router",
            "PENSTOCK_WORKERS_LISTEN: '7090' is no host:port",
        ),
    ],
)
def test_cells_that_cannot_share_an_address_are_refused(
    variables: dict[str, str], services: str, message: str
) -> None:
    ended = run_command("cell", services, **variables)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_several_workers_need_the_shape_of_cells() -> None:
    ended = run_command("up", "--workers", "2", "--shape", "processes")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "several workers need cells: add --shape cell" in ended.stderr


def test_an_unknown_profile_is_refused(tmp_path: Path) -> None:
    ended = run_command("--home", str(tmp_path), "up", PENSTOCK_PROFILE="prod")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "PENSTOCK_PROFILE: 'prod' is neither development nor production" in ended.stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_every_process_has_the_profile_of_the_stack(profile: Profile, tmp_path: Path) -> None:
    plan = StackPlan(ports.free(), tmp_path, tmp_path, tmp_path / "a.yaml", "t", profile=profile)
    programs = [program for stage in plan.service_stages() for program in stage]
    services = [one.env for one in programs if "PENSTOCK_OTLP_ENDPOINT" in one.env]
    assert services
    assert {env["PENSTOCK_PROFILE"] for env in services} == {profile}
