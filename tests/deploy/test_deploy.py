"""Deployment files, checked with what is there: compose and manifests against settings and API schemas; Tilt by an interpreter.

Not checked here: that images build (no container engine), that a cluster takes the manifests, and KEDA's own resource (no schema at hand).
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import starlark
import yaml
from penstock.core.config import ServiceSettings, describe

ROOT = Path(__file__).parents[2]
SERVICES = {folder.name: folder.name.replace("-", "_") for folder in (ROOT / "services").iterdir() if folder.is_dir()}
CUSTOM = {"ScaledObject", "Kustomization"}
KUBERNETES = "1.31"


def known(service: str) -> set[str]:
    """The variables that a service reads."""
    module = importlib.import_module(f"penstock.{SERVICES[service]}.config")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, ServiceSettings)]
    return {name for kind in kinds for name, _, _ in describe(kind)}


def test_compose_names_services_that_exist_and_variables_that_they_read() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    built = {name: row["build"]["args"]["SERVICE"] for name, row in compose["services"].items() if "build" in row}
    assert {"router", "cache", "limiter", "batcher", "inference-onnx-quantized", "telemetry", "scaler"} <= {
        *built.values()
    }
    for name, service in built.items():
        for variable in compose["services"][name]["environment"]:
            assert variable in known(service), (name, variable)


def rendered(overlay: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed here")
    folder = ROOT / "deploy/k8s/overlays" / overlay
    text = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.mark.parametrize("overlay", ["dev", "gpu"])
def test_manifests_render_and_fit_their_schemas(overlay: str) -> None:
    documents = rendered(overlay)
    kinds = {document["kind"] for document in documents}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ScaledObject", "StatefulSet"} <= kinds
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "penstock"


def test_every_deployment_is_probed_unprivileged_and_told_what_it_reads() -> None:
    documents = rendered("dev")
    maps = {document["metadata"]["name"]: document for document in documents if document["kind"] == "ConfigMap"}
    shared = next(row["data"] for name, row in maps.items() if name.startswith("penstock-env"))
    for document in documents:
        if document["kind"] != "Deployment":
            continue
        container = document["spec"]["template"]["spec"]["containers"][0]
        service = container["image"].removeprefix("penstock/")
        assert container["readinessProbe"]["grpc"]["port"] == container["ports"][0]["containerPort"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        told = {row["name"] for row in container["env"] if row["name"].startswith("PENSTOCK_")} | {*shared}
        assert told <= known(service), (service, told - known(service))


def test_the_scaled_object_points_at_a_port_that_the_scaler_serves() -> None:
    documents = rendered("dev")
    scaled = next(document for document in documents if document["kind"] == "ScaledObject")
    host, _, port = scaled["spec"]["triggers"][0]["metadata"]["scalerAddress"].partition(":")
    service = next(row for row in documents if row["kind"] == "Service" and row["metadata"]["name"] == host)
    assert service["spec"]["ports"][0]["port"] == int(port)


def test_the_dev_overlay_has_the_development_file() -> None:
    assert (ROOT / "deploy/k8s/overlays/dev/penstock.yaml").read_text() == (ROOT / "deploy/penstock.yaml").read_text()


def test_the_dockerfile_copies_what_is_there_and_no_torch() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    for library in re.findall(r"\./libs/(\w+)", text):
        assert (ROOT / "libs" / library / "pyproject.toml").exists()
    assert "libs/models" not in text
    assert "USER 10001" in text


class Recorder:
    """Tilt's functions as stubs that write down what they were called with."""

    def __init__(self, k8s: bool) -> None:
        self.k8s, self.calls = k8s, list[tuple[str, tuple[Any, ...], dict[str, Any]]]()

    def evaluate(self, name: str = "Tiltfile") -> starlark.FrozenModule:
        module, path = starlark.Module(), ROOT / "tilt" / name
        for function in (
            "local_resource", "docker_build", "k8s_yaml", "kustomize", "k8s_resource", "probe", "tcp_socket_action", "link",
            "_define_bool", "_parse",
        ):  # fmt: skip
            module.add_callable(function, self._stub(function))
        module["TRIGGER_MODE_MANUAL"] = "manual"
        text = path.read_text().replace("config.define_bool", "_define_bool").replace("config.parse", "_parse")
        text = text.replace("config.main_dir", "'/main'")
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


def test_tilt_runs_every_service_as_a_local_process() -> None:
    tilt = Recorder(k8s=False)
    tilt.evaluate()
    resources = tilt.of("local_resource")
    assert {"setup", "redis", "router", "cache", "limiter", "batcher", "inference-1", "telemetry", "demo"} == {
        *resources
    }
    for name, row in resources.items():
        if "serve_cmd" not in row:
            target = row["cmd"].split()[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), name
            continue
        module = row["serve_cmd"].split(" -m ")[1].split()[0]
        importlib.import_module(f"{module}.__main__")
        assert all(needed in resources for needed in row["resource_deps"])
        if name != "redis":
            folder = "inference-onnx-quantized" if name == "inference-1" else name
            assert {*row["serve_env"]} <= known(folder), name
            assert all((ROOT / "tilt" / path).exists() for path in row["deps"])
            assert row["readiness_probe"] == "probe"


def test_tilt_builds_every_image_and_deploys_the_dev_overlay() -> None:
    tilt = Recorder(k8s=True)
    tilt.evaluate()
    images = tilt.of("docker_build")
    assert all((ROOT / "services" / row["build_args"]["SERVICE"]).is_dir() for row in images.values())
    folder = next(args[0] for name, args, _ in tilt.calls if name == "kustomize")
    assert (ROOT / "tilt" / folder / "kustomization.yaml").exists()
    assert not tilt.of("local_resource")
