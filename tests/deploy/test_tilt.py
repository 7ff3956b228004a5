"""Tilt's files, evaluated by a Starlark interpreter with recording stubs; the local commands are
then run as Tilt would.

Not checked here: Tilt itself, which is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import starlark
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.stack import ports

ROOT = Path(__file__).parents[2]
STARTED_S = 60.0


class Recorder:
    """Tilt's functions as stubs that write down what they were called with."""

    def __init__(self, k8s: bool) -> None:
        self.k8s, self.calls = k8s, list[tuple[str, tuple[Any, ...], dict[str, Any]]]()

    def evaluate(self, name: str = "Tiltfile") -> starlark.FrozenModule:
        module, path = starlark.Module(), ROOT / "tilt" / name
        for function in (
            "local_resource",
            "docker_build",
            "k8s_yaml",
            "kustomize",
            "k8s_resource",
            "probe",
            "tcp_socket_action",
            "exec_action",
            "link",
            "_define_bool",
            "_parse",
        ):
            module.add_callable(function, self._stub(function))
        module["TRIGGER_MODE_MANUAL"] = "manual"
        text = (
            path.read_text()
            .replace("config.define_bool", "_define_bool")
            .replace("config.parse", "_parse")
        )
        text = text.replace("config.main_dir", f"'{ROOT}/tilt'")
        dialect = starlark.Dialect.extended()
        dialect.enable_keyword_only_arguments = True
        dialect.enable_top_level_stmt = True
        syntax = starlark.parse(str(path), text, dialect)
        loader = starlark.FileLoader(lambda wanted: self.evaluate(wanted.removeprefix("./")))
        starlark.eval(module, syntax, starlark.Globals.standard(), loader)
        return module.freeze()

    def _stub(self, function: str) -> Any:
        def called(*args: Any, **named: Any) -> Any:
            self.calls.append((function, args, named))
            return {"k8s": self.k8s} if function == "_parse" else function

        return called

    def of(self, function: str) -> dict[str, dict[str, Any]]:
        return {args[0]: named for name, args, named in self.calls if name == function}


@pytest.fixture(scope="module")
def resources() -> dict[str, dict[str, Any]]:
    tilt = Recorder(k8s=False)
    tilt.evaluate()
    return tilt.of("local_resource")


def test_tilt_has_every_service_with_readiness_links_labels_and_live_reload(
    resources: dict[str, dict[str, Any]],
) -> None:
    services = {folder.name for folder in (ROOT / "services").iterdir()}
    run = {
        row["serve_cmd"].split("-m penstock.")[1].replace("_", "-")
        for row in resources.values()
        if "serve_env" in row
    }
    assert run == services
    for row in resources.values():
        assert row["labels"]
        assert all(needed in resources for needed in row.get("resource_deps", ()))
        assert all((ROOT / "tilt" / path).exists() for path in row.get("deps", ()))
        if "serve_cmd" in row:
            assert row["readiness_probe"] == "probe"
    assert all(len(resources[name]["links"]) == 1 for name in ("console", "telemetry"))
    assert (resources["demo"]["auto_init"], resources["demo"]["trigger_mode"]) == (False, "manual")


def libraries_of(member: Path) -> set[str]:
    """The libraries that a member of this repository needs, with those that it needs through them
    and by choice of a runtime.
    """
    project = tomllib.loads((member / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project.get("optional-dependencies", {}).get("cpu", ())]
    direct = {match[1] for text in asked if (match := re.match(r"penstock-([a-z]+)", text))}
    return direct | {name for library in direct for name in libraries_of(ROOT / "libs" / library)}


def test_services_reload_when_their_own_code_or_a_library_changes(
    resources: dict[str, dict[str, Any]],
) -> None:
    for name, row in resources.items():
        if "serve_env" in row:
            module = row["serve_cmd"].split("-m penstock.")[1]
            folders = [(ROOT / "tilt" / path).resolve() for path in row["deps"]]
            assert any(
                (folder / "penstock" / module / "__main__.py").exists() for folder in folders
            ), name
            watched = {
                folder.parent.name for folder in folders if folder.parent.parent == ROOT / "libs"
            }
            assert watched == libraries_of(ROOT / "services" / module.replace("_", "-")), name


def test_the_commands_that_end_do_what_make_knows(resources: dict[str, dict[str, Any]]) -> None:
    for name in ("setup", "demo"):
        planned = subprocess.run(
            ["make", "-n", *resources[name]["cmd"].split()[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert planned.returncode == 0, planned.stderr


def _elsewhere(
    resources: dict[str, dict[str, Any]], folder: Path, home: Path
) -> dict[str, dict[str, Any]]:
    """The resources on free ports, with sockets and data in `folder`, so that the test meets
    nobody.
    """
    swap = {
        **dict(zip(ports.documented().values(), ports.free().values(), strict=True)),
        f"unix://{ROOT}/tilt/../.penstock/tilt.sock": f"unix://{folder}/tilt.sock",
    }
    return {
        name: {
            "argv": shlex.split(
                row["serve_cmd"].replace(".penstock/tilt.sock", f"{folder}/tilt.sock")
            ),
            "needs": [*row["resource_deps"]],
            "env": {key: swap.get(value, value) for key, value in row.get("serve_env", {}).items()}
            | {"PENSTOCK_HOME": str(home if "inference" in name or name == "cache" else folder)},
        }
        for name, row in resources.items()
        if "serve_cmd" in row and row.get("auto_init", True)
    }


async def _answers(row: dict[str, Any], folder: Path) -> None:
    """Wait as Tilt's readiness probe does: for the socket of Redis, or for the service's port."""
    host, _, port = row["env"].get("PENSTOCK_LISTEN", "").partition(":")
    async with asyncio.timeout(STARTED_S):
        while True:
            with contextlib.suppress(OSError):
                reached = (
                    asyncio.open_connection(host, int(port))
                    if port
                    else asyncio.open_unix_connection(folder / "tilt.sock")
                )
                _, writer = await reached
                writer.close()
                return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _running(
    rows: dict[str, dict[str, Any]], folder: Path
) -> AsyncIterator[dict[str, asyncio.subprocess.Process]]:
    children: dict[str, asyncio.subprocess.Process] = {}
    try:
        while len(children) < len(rows):
            ready = [
                name
                for name, row in rows.items()
                if name not in children and {*row["needs"]} <= {"setup", *children}
            ]
            assert ready, "resources need each other in a circle"
            for name in ready:
                children[name] = await asyncio.create_subprocess_exec(
                    *rows[name]["argv"],
                    cwd=ROOT,
                    env={**os.environ, **rows[name]["env"]},
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            await asyncio.gather(*(_answers(rows[name], folder) for name in ready))
        yield children
    finally:
        for child in reversed(children.values()):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
            await child.wait()


@pytest.mark.processes
async def test_every_local_command_runs_and_together_they_answer(
    resources: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory, home: Path
) -> None:
    folder = tmp_path_factory.mktemp("t")
    rows = _elsewhere(resources, folder, home)
    async with _running(rows, folder) as children:
        address = rows["router"]["env"]["PENSTOCK_LISTEN"]
        async with grpc.aio.insecure_channel(address) as channel:
            router = router_pb2_grpc.RouterServiceStub(channel)
            answer = await router.Embed(
                router_pb2.EmbedRequest(texts=["where is my order"]),
                metadata=(("authorization", "Bearer psk-development"),),
                timeout=STARTED_S,
                wait_for_ready=True,
            )
        assert len(answer.embeddings[0].values) == 384
        assert all(child.returncode is None for child in children.values())
    assert {name: child.returncode for name, child in children.items() if child.returncode} == {}


def test_tilt_builds_every_image_and_deploys_the_dev_overlay() -> None:
    tilt = Recorder(k8s=True)
    tilt.evaluate()
    images = tilt.of("docker_build")
    assert all(
        (ROOT / "services" / row["build_args"]["SERVICE"]).is_dir() for row in images.values()
    )
    folder = next(args[0] for name, args, _ in tilt.calls if name == "kustomize")
    assert (ROOT / "tilt" / folder / "kustomization.yaml").exists()
    deployed = {
        *re.findall(
            r"image: (penstock/\S+)",
            "".join(path.read_text() for path in (ROOT / "deploy/k8s/base").glob("*.yaml")),
        )
    }
    assert deployed == {*images}
    models = tilt.of("local_resource")["models"]
    assert models["resource_deps"] == ["redis"]  # else the namespace may not be there yet
    script = models["cmd"].split(" && ")[1]
    assert os.access(ROOT / script, os.X_OK)
