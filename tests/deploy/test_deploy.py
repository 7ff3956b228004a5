"""Deployment files, checked with what is there: compose and manifests against settings and API
schemas.

Not checked here: that images build (no container engine), that a cluster takes the manifests, and
KEDA's own resource (no schema at hand).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
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
from penstock.scaler.settings import ScalingSection
from penstock.service.settings import ServiceSettings, describe, load_section
from penstock.stack.process import GRPC_EXPERIMENTS

ROOT = Path(__file__).parents[2]
SERVICES = {
    folder.name: folder.name.replace("-", "_")
    for folder in (ROOT / "services").iterdir()
    if folder.is_dir()
}
CUSTOM = {"ScaledObject", "Kustomization"}
KUBERNETES = "1.31"


def known(service: str) -> set[str]:
    """The variables that a service reads."""
    module = importlib.import_module(f"penstock.{SERVICES[service]}.settings")
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, ServiceSettings)
    ]
    return {name for kind in kinds for name, _, _ in describe(kind)}


def test_compose_names_services_that_exist_and_variables_that_they_read() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    built = {
        name: row["build"]["args"]["SERVICE"]
        for name, row in compose["services"].items()
        if "build" in row
    }
    assert {*built.values()} == {*SERVICES}
    for name, service in built.items():
        for variable in compose["services"][name]["environment"]:
            assert variable in known(service), (name, variable)


def test_compose_mounts_what_is_read_and_asks_whether_each_serves() -> None:
    """As Compose reads it: of two merged mappings that say the same key, the earlier one counts, in
    PyYAML too.
    """
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    for name, row in services.items():
        assert row["healthcheck"]["test"][0] == "CMD"
        if "build" not in row:
            continue
        mounted = {volume.split(":")[1] for volume in row["volumes"]}
        assert row["environment"]["PENSTOCK_CONFIG_FILE"] in mounted
        runs_models = row["build"]["args"]["SERVICE"] in {"cache", "inference-onnx-quantized"}
        assert ("/var/lib/penstock/models" in mounted) == runs_models, name
        module = row["healthcheck"]["test"][-1]
        assert importlib.util.find_spec(module) if name != "console" else "7080" in module
        hosts = {
            value.partition(":")[0]
            for key, value in row["environment"].items()
            if key.endswith("_ADDRESS")
        }
        assert hosts <= {*services}
        assert all(
            port.count(":") == 2 and port.startswith("127.0.0.1:") for port in row.get("ports", ())
        )


def rendered(overlay: str) -> list[dict[str, Any]]:
    return kustomized(ROOT / "deploy/k8s/overlays" / overlay)


def kustomized(folder: Path) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed here")
    text = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
    ).stdout
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.mark.parametrize("overlay", ["dev", "gpu"])
def test_manifests_render_and_fit_their_schemas(overlay: str) -> None:
    documents = rendered(overlay)
    kinds = {document["kind"] for document in documents}
    assert {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ScaledObject",
        "StatefulSet",
    } <= kinds
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "penstock"


def test_every_deployment_is_probed_unprivileged_and_told_what_it_reads() -> None:
    documents = rendered("dev")
    maps = {
        document["metadata"]["name"]: document
        for document in documents
        if document["kind"] == "ConfigMap"
    }
    shared = next(row["data"] for name, row in maps.items() if name.startswith("penstock-env"))
    for document in documents:
        if document["kind"] != "Deployment":
            continue
        container = document["spec"]["template"]["spec"]["containers"][0]
        service = container["image"].removeprefix("penstock/")
        if service != "console":  # a page, not a gRPC server
            assert (
                container["readinessProbe"]["grpc"]["port"]
                == container["ports"][0]["containerPort"]
            )
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert document["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        assert (
            container["imagePullPolicy"] == "IfNotPresent"
        )  # an image without a tag would be pulled, and no registry has ours
        told = {
            row["name"] for row in container.get("env", ()) if row["name"].startswith("PENSTOCK_")
        } | {*shared}
        assert told <= known(service), (service, told - known(service))


def test_the_scaled_object_points_at_a_port_that_the_scaler_serves() -> None:
    documents = rendered("dev")
    scaled = next(document for document in documents if document["kind"] == "ScaledObject")
    address, _, port = scaled["spec"]["triggers"][0]["metadata"]["scalerAddress"].partition(":")
    host, namespace, kind = address.split(
        "."
    )  # KEDA calls from its own namespace, where a bare name means nothing
    assert (namespace, kind) == (scaled["metadata"]["namespace"], "svc")
    service = next(
        row for row in documents if row["kind"] == "Service" and row["metadata"]["name"] == host
    )
    assert service["spec"]["ports"][0]["port"] == int(port)
    assert any(
        row["kind"] == "Deployment"
        and row["metadata"]["name"] == scaled["spec"]["scaleTargetRef"]["name"]
        for row in documents
    )


def test_the_dev_overlay_has_the_development_file() -> None:
    assert (ROOT / "deploy/k8s/overlays/dev/penstock.yaml").read_text() == (
        ROOT / "deploy/penstock.yaml"
    ).read_text()


@pytest.fixture
def everything(tmp_path: Path) -> list[dict[str, Any]]:
    """The gpu overlay, which has all of dev, with the upstream beside it."""
    k8s = os.path.relpath(ROOT / "deploy/k8s", tmp_path)
    overlay = {
        "namespace": "penstock",
        "resources": [f"{k8s}/overlays/gpu"],
        "components": [f"{k8s}/components/upstream"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return kustomized(tmp_path)


def pods_of(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods' templates by `app.kubernetes.io/name`."""
    found = [
        row["spec"]["template"] for row in documents if row["kind"] in {"Deployment", "StatefulSet"}
    ]
    return {pod["metadata"]["labels"]["app.kubernetes.io/name"]: pod for pod in found}


def uses_redis(service: str) -> bool:
    sources = (ROOT / "services" / service / "src").rglob("*.py")
    return any(
        re.search(r"^(import redis|from penstock\.core\.redis)", path.read_text(), re.MULTILINE)
        for path in sources
    )


def calls_made(pods: dict[str, dict[str, Any]]) -> set[tuple[str, str]]:
    """Who calls which `name:port`, from the addresses that each is told; a batcher calls the
    instances that say where they are.
    """
    made = set()
    for name, pod in pods.items():
        container = pod["spec"]["containers"][0]
        told = {row["name"]: row.get("value", "") for row in container.get("env", ())}
        made |= {(name, value) for key, value in told.items() if key.endswith("_ADDRESS")}
        if container["image"].startswith("penstock/") and name != "telemetry":
            made.add((name, "telemetry:4317"))
            if uses_redis(container["image"].removeprefix("penstock/").removesuffix("-gpu")):
                made.add((name, "redis:6379"))
        if "PENSTOCK_INSTANCE_ID" in told:
            made.add(("batcher", f"{name}:{container['ports'][0]['containerPort']}"))
    return made


def names_in(peer: dict[str, Any]) -> list[str]:
    selector = peer["podSelector"]
    if "matchLabels" in selector:
        return [selector["matchLabels"]["app.kubernetes.io/name"]]
    (expression,) = selector["matchExpressions"]
    assert (expression["key"], expression["operator"]) == ("app.kubernetes.io/name", "In")
    return list(expression["values"])


def test_network_policies_allow_the_calls_that_are_made_and_no_other(
    everything: list[dict[str, Any]],
) -> None:
    pods = pods_of(everything)
    policies = {
        row["metadata"]["name"]: row["spec"] for row in everything if row["kind"] == "NetworkPolicy"
    }
    closed = policies.pop("closed")
    assert not closed.get("ingress")
    assert all(
        closed["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        for pod in pods.values()
    )
    open_to_all = policies.pop("router-open")["ingress"]
    assert open_to_all == [{"ports": [{"port": 7070, "protocol": "TCP"}]}]
    allowed, beside = set(), set()
    for policy in policies.values():
        target = policy["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        served = {port["containerPort"] for port in pods[target]["spec"]["containers"][0]["ports"]}
        for rule in policy["ingress"]:
            (port,) = rule["ports"]
            assert port["port"] in served
            for peer in rule["from"]:
                if "namespaceSelector" in peer:
                    beside.add(
                        (
                            *peer["namespaceSelector"]["matchLabels"].values(),
                            f"{target}:{port['port']}",
                        )
                    )
                else:
                    allowed |= {(name, f"{target}:{port['port']}") for name in names_in(peer)}
    assert {call for call in calls_made(pods) if call[1] != "router:7070"} == allowed
    assert beside == {("keda", "scaler:7079"), ("monitoring", "telemetry:9464")}


def test_what_runs_twice_is_not_all_disrupted_at_once() -> None:
    base = [
        row
        for path in (ROOT / "deploy/k8s/base").glob("*.yaml")
        for row in yaml.safe_load_all(path.read_text())
    ]
    budgets = {
        row["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        for row in base
        if row["kind"] == "PodDisruptionBudget"
    }
    assert budgets == {
        row["metadata"]["name"]
        for row in base
        if row["kind"] == "Deployment" and row["spec"]["replicas"] > 1
    }


def test_the_base_stands_without_keda() -> None:
    documents = kustomized(ROOT / "deploy/k8s/base")
    assert "ScaledObject" not in {row["kind"] for row in documents}
    accounts = {row["metadata"]["name"] for row in documents if row["kind"] == "ServiceAccount"}
    asked = {
        pod["spec"]["serviceAccountName"]
        for pod in pods_of(documents).values()
        if "serviceAccountName" in pod["spec"]
    }
    assert asked == accounts == {"scaler"}


def test_every_mounted_claim_config_and_secret_is_there(everything: list[dict[str, Any]]) -> None:
    there = {(row["kind"], row["metadata"]["name"]) for row in everything}
    for pod in pods_of(everything).values():
        container = pod["spec"]["containers"][0]
        for volume in pod["spec"].get("volumes", ()):
            if "persistentVolumeClaim" in volume:
                assert (
                    "PersistentVolumeClaim",
                    volume["persistentVolumeClaim"]["claimName"],
                ) in there
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
        for row in container.get("envFrom", ()):
            for kind, said in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                assert said not in row or (kind, row[said]["name"]) in there
        for row in container.get("env", ()):
            if "secretKeyRef" in row.get("valueFrom", {}):
                assert ("Secret", row["valueFrom"]["secretKeyRef"]["name"]) in there


def test_keda_asks_for_a_pool_that_the_file_has() -> None:
    scaled = next(document for document in rendered("dev") if document["kind"] == "ScaledObject")
    section = load_section(ROOT / "deploy/penstock.yaml", "scaling", ScalingSection)
    (pool,) = [
        pool
        for pool in section.pools
        if pool.name == scaled["spec"]["triggers"][0]["metadata"]["pool"]
    ]
    assert (pool.least, pool.most) == (
        scaled["spec"]["minReplicaCount"],
        scaled["spec"]["maxReplicaCount"],
    )


def requirements(folder: Path, extras: set[str]) -> list[Requirement]:
    """What a member of this repository asks for, with these of its extras."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {})
    return [
        Requirement(text)
        for text in (
            *project["dependencies"],
            *(row for extra in extras for row in optional.get(extra, ())),
        )
    ]


def closure(service: str) -> set[str]:
    """Every distribution that the image of a service gets, ours by their folders and the others by
    what is installed here.
    """
    extras = set(
        re.search(r"ARG EXTRAS=(\S+)", (ROOT / "deploy/Dockerfile").read_text())[1].split(",")
    )  # type: ignore[index]
    waiting, seen = [(f"penstock-{service}", frozenset(extras))], set[str]()
    asked = set[tuple[str, frozenset[str]]]()
    while waiting:
        name, wanted = row = waiting.pop()
        if row in asked:
            continue
        asked.add(row)
        seen.add(name)
        ours = (
            ROOT
            / ("services" if name == f"penstock-{service}" else "libs")
            / name.removeprefix("penstock-")
        )
        if name.startswith("penstock-"):
            needed = requirements(ours, set(wanted))
        else:
            needed = [Requirement(text) for text in distribution(name).requires or ()]
        waiting.extend(
            (canonicalize_name(need.name), frozenset(need.extras))
            for need in needed
            if not need.marker
            or any(need.marker.evaluate({"extra": extra}) for extra in wanted or {""})
        )
    return seen


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_an_image_gets_what_its_service_needs_and_no_torch(service: str) -> None:
    names = closure(service)
    assert not names & {
        "torch",
        "transformers",
        "penstock-models",
        "penstock-bench",
        "onnxruntime-gpu",
    }
    built = set(re.findall(r"\./libs/([a-z]+)", (ROOT / "deploy/Dockerfile").read_text())) | {
        service
    }
    assert {
        name.removeprefix("penstock-") for name in names if name.startswith("penstock-")
    } <= built
    assert ("onnxruntime" in names) == (service in {"cache", "inference-onnx-quantized", "router"})
    assert ("kubernetes" in names) == (service == "scaler")


def test_the_dockerfile_copies_what_is_there_and_runs_unprivileged() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (ROOT / source.replace("${SERVICE}", "router")).exists(), source
    assert text.rindex("USER 10001") > text.rindex("RUN ")
    assert f"GRPC_EXPERIMENTS={GRPC_EXPERIMENTS}" in text
    for service in SERVICES:
        scripts = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())[
            "project"
        ]["scripts"]
        assert f"penstock-{service}" in scripts
