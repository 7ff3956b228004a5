"""Deployment files, checked with what is there: compose and manifests against settings and API schemas.

Not checked here: that images build (no container engine), that a cluster takes the manifests, and KEDA's own resource (no schema at hand).
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from penstock.core.config import ServiceSettings, describe, load_section
from penstock.scaler.config import ScalingSection
from penstock.stack.process import POLL_WHERE_WAITED

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
    assert {*built.values()} == {*SERVICES}
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
        if service != "console":  # a page, not a gRPC server
            assert container["readinessProbe"]["grpc"]["port"] == container["ports"][0]["containerPort"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        told = {row["name"] for row in container.get("env", ()) if row["name"].startswith("PENSTOCK_")} | {*shared}
        assert told <= known(service), (service, told - known(service))


def test_the_scaled_object_points_at_a_port_that_the_scaler_serves() -> None:
    documents = rendered("dev")
    scaled = next(document for document in documents if document["kind"] == "ScaledObject")
    host, _, port = scaled["spec"]["triggers"][0]["metadata"]["scalerAddress"].partition(":")
    service = next(row for row in documents if row["kind"] == "Service" and row["metadata"]["name"] == host)
    assert service["spec"]["ports"][0]["port"] == int(port)


def test_the_dev_overlay_has_the_development_file() -> None:
    assert (ROOT / "deploy/k8s/overlays/dev/penstock.yaml").read_text() == (ROOT / "deploy/penstock.yaml").read_text()


@pytest.mark.parametrize("overlay", ["dev", "gpu"])
def test_network_policies_open_ports_that_somebody_serves(overlay: str) -> None:
    documents = rendered(overlay)
    pods = [row["spec"]["template"] for row in documents if row["kind"] in {"Deployment", "StatefulSet"}]
    for policy in (row for row in documents if row["kind"] == "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"]
        meant = [pod for pod in pods if wanted.items() <= pod["metadata"]["labels"].items()]
        assert meant, policy["metadata"]["name"]
        served = {port["containerPort"] for pod in meant for port in pod["spec"]["containers"][0]["ports"]}
        opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", [])}
        assert opened <= served, policy["metadata"]["name"]


def test_keda_asks_for_a_pool_that_the_file_has() -> None:
    scaled = next(document for document in rendered("dev") if document["kind"] == "ScaledObject")
    section = load_section(ROOT / "deploy/penstock.yaml", "scaling", ScalingSection)
    assert scaled["spec"]["triggers"][0]["metadata"]["pool"] in {pool.name for pool in section.pools}


def requirements(folder: Path, extras: set[str]) -> list[Requirement]:
    """What a member of this repository asks for, with these of its extras."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {})
    return [
        Requirement(text)
        for text in (*project["dependencies"], *(row for extra in extras for row in optional.get(extra, ())))
    ]


def closure(service: str) -> set[str]:
    """Every distribution that the image of a service gets, ours by their folders and the others by what is installed here."""
    extras = set(re.search(r"ARG EXTRAS=(\S+)", (ROOT / "deploy/Dockerfile").read_text())[1].split(","))  # type: ignore[index]
    waiting, seen = [(f"penstock-{service}", frozenset(extras))], set[str]()
    asked = set[tuple[str, frozenset[str]]]()
    while waiting:
        name, wanted = row = waiting.pop()
        if row in asked:
            continue
        asked.add(row)
        seen.add(name)
        ours = ROOT / ("services" if name == f"penstock-{service}" else "libs") / name.removeprefix("penstock-")
        if name.startswith("penstock-"):
            needed = requirements(ours, set(wanted))
        else:
            needed = [Requirement(text) for text in distribution(name).requires or ()]
        waiting.extend(
            (canonicalize_name(need.name), frozenset(need.extras))
            for need in needed
            if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in wanted or {""})
        )
    return seen


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_an_image_gets_what_its_service_needs_and_no_torch(service: str) -> None:
    names = closure(service)
    assert not names & {"torch", "transformers", "penstock-models", "penstock-bench", "onnxruntime-gpu"}
    assert ("onnxruntime" in names) == (service in {"cache", "inference-onnx-quantized", "router"})
    assert ("kubernetes" in names) == (service == "scaler")


def test_the_dockerfile_copies_what_is_there_and_runs_unprivileged() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (ROOT / source.replace("${SERVICE}", "router")).exists(), source
    assert text.rindex("USER 10001") > text.rindex("RUN ")
    assert f"GRPC_EXPERIMENTS={POLL_WHERE_WAITED}" in text
    for service in SERVICES:
        scripts = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())["project"]["scripts"]
        assert f"penstock-{service}" in scripts
