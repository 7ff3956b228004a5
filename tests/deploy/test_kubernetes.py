"""deploy/k8s against deploy/services.yaml, the services' settings and Kubernetes' schemas.

Not checked here: that a cluster takes the manifests, and KEDA's own resource, whose schema is not
at hand.
"""

from __future__ import annotations

import os
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kustomized import (
    K8S,
    NAME_LABEL,
    Document,
    container_of,
    kustomized,
    of_kind,
    overlay,
    pods_of,
    service_of,
    variables_of,
)
from penstock.scaler.pool_settings import ScalingSection
from penstock.service.settings import load_section
from services_file import (
    FILE,
    LISTEN,
    ROOT,
    STORES,
    differences,
    host_port,
    listen_variables,
    store_problems,
)
from settings_read import variables_read

KUBERNETES_VERSION = "1.31"
WITHOUT_SCHEMA = {"ScaledObject", "Kustomization"}
KINDS = {
    "Deployment",
    "Service",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "ScaledObject",
    "StatefulSet",
}
Connection = tuple[str, str, int]
"""Name of the calling pod, name of the called pod, and the port."""


@pytest.fixture
def documents(tmp_path: Path) -> list[Document]:
    """Everything there is: the gpu overlay, which has all of dev, with the upstream component."""
    k8s = os.path.relpath(K8S, tmp_path)
    content = {
        "namespace": "penstock",
        "resources": [f"{k8s}/overlays/gpu"],
        "components": [f"{k8s}/components/upstream"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return kustomized(tmp_path)


def our_pods(documents: list[Document]) -> dict[str, tuple[str, Document]]:
    """The service and the template of each of our pods, by the pod's name."""
    return {
        name: (service, pod)
        for name, pod in pods_of(documents).items()
        if (service := service_of(pod))
    }


@pytest.mark.parametrize("name", ["dev", "gpu"])
def test_manifests_fit_their_schemas_and_are_in_our_namespace(name: str) -> None:
    documents = overlay(name)
    assert {document["kind"] for document in documents} >= KINDS
    for document in documents:
        if document["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "penstock"


@pytest.mark.parametrize("store", STORES)
def test_each_store_has_a_volume_and_only_the_caches_is_bounded(
    store: str, documents: list[Document]
) -> None:
    pod = pods_of(documents)[f"redis-{store}"]
    container = container_of(pod)
    assert store_problems(store, container["args"]) == []
    assert [row["mountPath"] for row in container["volumeMounts"]] == ["/data"]


def test_services_keep_state_in_the_store_of_their_entry(documents: list[Document]) -> None:
    for service, pod in our_pods(documents).values():
        variables = variables_of(pod, documents)
        for store in STORES:
            url = f"redis://redis-{store}:{FILE.store.port}/0"
            assert variables[f"PENSTOCK_{store.upper()}_URL"] == url, service


def test_every_service_is_deployed(documents: list[Document]) -> None:
    assert {service for service, _ in our_pods(documents).values()} == set(FILE.services)


def test_every_pod_has_the_ports_and_addresses_of_its_entry(documents: list[Document]) -> None:
    pods = our_pods(documents)

    def service_at(address: str) -> str:
        host, port = host_port(address)
        service, _ = pods[host]
        assert port == FILE.services[service].port, address
        return service

    problems = []
    for service, pod in pods.values():
        variables = variables_of(pod, documents)
        problems += differences(service, variables, service_at)
        assert set(variables) - {"POD_IP"} <= variables_read(service), service
        declared = {row["containerPort"] for row in container_of(pod)["ports"]}
        assert declared == set(listen_variables(variables).values()), service
    assert problems == []


def test_every_pod_is_probed_at_its_own_port(documents: list[Document]) -> None:
    for service, pod in our_pods(documents).values():
        container = container_of(pod)
        entry = FILE.services[service]
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            if entry.protocol == "grpc":
                assert probe["grpc"]["port"] == entry.port
            else:
                (port_name,) = (row["name"] for row in container["ports"])
                way = "httpGet" if "httpGet" in probe else "tcpSocket"
                assert probe[way]["port"] == port_name


def test_every_pod_runs_unprivileged(documents: list[Document]) -> None:
    for _, pod in our_pods(documents).values():
        security = container_of(pod)["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_images_are_not_pulled_where_they_are_present(documents: list[Document]) -> None:
    # An image without a tag would be pulled every time, and no registry has ours.
    for _, pod in our_pods(documents).values():
        assert container_of(pod)["imagePullPolicy"] == "IfNotPresent"


def test_a_pod_mounts_models_where_its_service_reads_them(documents: list[Document]) -> None:
    for service, pod in our_pods(documents).values():
        claims = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        assert claims == ({"penstock-models"} if FILE.services[service].models else set()), service


def test_services_forward_to_the_ports_of_their_pods(documents: list[Document]) -> None:
    pods = pods_of(documents)
    for document in of_kind(documents, "Service"):
        container = container_of(pods[document["spec"]["selector"][NAME_LABEL]])
        ports = {row["name"]: row["containerPort"] for row in container["ports"]}
        for row in document["spec"]["ports"]:
            assert ports[row["targetPort"]] == row["port"], document["metadata"]["name"]


def calls_of_file(documents: list[Document]) -> set[Connection]:
    """The connections that the file names, between pods."""
    pods = our_pods(documents)
    pod_of = {service: name for name, (service, _) in pods.items()}
    calls: set[Connection] = set()
    for name, (service, _) in pods.items():
        for callee, port_name in FILE.calls_of(service):
            calls.add((name, pod_of[callee], FILE.services[callee].ports[port_name]))
        if store := FILE.services[service].store:
            calls.add((name, f"redis-{store}", FILE.store.port))
    return calls


def allowed_by(policy: Document) -> tuple[set[Connection], set[Connection]]:
    """The connections that a policy allows: between pods, and from other namespaces."""
    target = policy["podSelector"]["matchLabels"][NAME_LABEL]
    between: set[Connection] = set()
    outside: set[Connection] = set()
    for rule in policy["ingress"]:
        (port,) = (row["port"] for row in rule["ports"])
        for peer in rule["from"]:
            if "namespaceSelector" in peer:
                (namespace,) = peer["namespaceSelector"]["matchLabels"].values()
                outside.add((namespace, target, port))
            else:
                between |= {(name, target, port) for name in selected_names(peer["podSelector"])}
    return between, outside


def selected_names(selector: Document) -> list[str]:
    if "matchLabels" in selector:
        return [selector["matchLabels"][NAME_LABEL]]
    (expression,) = selector["matchExpressions"]
    assert (expression["key"], expression["operator"]) == (NAME_LABEL, "In")
    names: list[str] = expression["values"]
    return names


def test_network_policies_allow_the_calls_of_the_file_and_no_other(
    documents: list[Document],
) -> None:
    policies = {
        document["metadata"]["name"]: document["spec"]
        for document in of_kind(documents, "NetworkPolicy")
    }
    closed = policies.pop("closed")
    assert not closed["ingress"]
    for pod in pods_of(documents).values():
        assert closed["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()

    pod_of = {service: name for name, (service, _) in our_pods(documents).items()}
    open_to = {
        (caller, pod_of[service], entry.ports[port_name])
        for service, entry in FILE.services.items()
        for port_name, caller in entry.open_to.items()
    }
    open_to_anyone = {(pod, port) for caller, pod, port in open_to if caller == "anyone"}
    for pod, port in open_to_anyone:
        policy = policies.pop(f"{pod}-open")
        assert policy["podSelector"]["matchLabels"] == {NAME_LABEL: pod}
        assert policy["ingress"] == [{"ports": [{"port": port, "protocol": "TCP"}]}]

    between: set[Connection] = set()
    outside: set[Connection] = set()
    for policy in policies.values():
        of_policy = allowed_by(policy)
        between |= of_policy[0]
        outside |= of_policy[1]
    needed = {call for call in calls_of_file(documents) if call[1:] not in open_to_anyone}
    assert between == needed
    assert outside == {call for call in open_to if call[0] != "anyone"}


def test_keda_calls_a_port_that_the_scaler_serves(documents: list[Document]) -> None:
    (scaled,) = of_kind(documents, "ScaledObject")
    address = scaled["spec"]["triggers"][0]["metadata"]["scalerAddress"]
    host, port = host_port(address)
    # KEDA calls from a namespace of its own, where a bare name would not be found.
    name, namespace, kind = host.split(".")
    assert (namespace, kind) == (scaled["metadata"]["namespace"], "svc")
    assert port == FILE.services["scaler"].ports["keda"]
    services = {
        document["metadata"]["name"]: document for document in of_kind(documents, "Service")
    }
    assert port in {row["port"] for row in services[name]["spec"]["ports"]}
    deployments = {document["metadata"]["name"] for document in of_kind(documents, "Deployment")}
    assert scaled["spec"]["scaleTargetRef"]["name"] in deployments


def test_keda_scales_within_the_limits_of_the_pool(documents: list[Document]) -> None:
    (scaled,) = of_kind(documents, "ScaledObject")
    name = scaled["spec"]["triggers"][0]["metadata"]["pool"]
    section = load_section(ROOT / "deploy/penstock.yaml", "scaling", ScalingSection)
    (pool,) = (pool for pool in section.pools if pool.name == name)
    limits = (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"])
    assert (pool.min_instances, pool.max_instances) == limits


def test_the_dev_overlay_has_the_development_configuration() -> None:
    # kustomize reads no file outside an overlay's folder, so there are two copies.
    copy = (K8S / "overlays/dev/penstock.yaml").read_text()
    assert copy == (ROOT / "deploy/penstock.yaml").read_text()


def test_pods_with_replicas_have_a_disruption_budget() -> None:
    base = [
        document
        for path in (K8S / "base").glob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
    ]
    budgets = {
        document["spec"]["selector"]["matchLabels"][NAME_LABEL]
        for document in of_kind(base, "PodDisruptionBudget")
    }
    assert budgets == {
        document["metadata"]["name"]
        for document in of_kind(base, "Deployment")
        if document["spec"]["replicas"] > 1
    }


def test_the_base_does_not_need_keda() -> None:
    assert of_kind(kustomized(K8S / "base"), "ScaledObject") == []


def test_only_the_scaler_has_an_account_at_the_cluster() -> None:
    documents = kustomized(K8S / "base")
    accounts = {document["metadata"]["name"] for document in of_kind(documents, "ServiceAccount")}
    used = {
        pod["spec"]["serviceAccountName"]
        for pod in pods_of(documents).values()
        if "serviceAccountName" in pod["spec"]
    }
    assert used == accounts == {"scaler"}


def test_every_claim_map_and_secret_that_a_pod_uses_exists(documents: list[Document]) -> None:
    existing = {(document["kind"], document["metadata"]["name"]) for document in documents}
    for pod in pods_of(documents).values():
        assert references_of(pod) <= existing


def references_of(pod: Document) -> set[tuple[str, str]]:
    """(kind, name) of what a pod mounts and of what its variables come from."""
    references = set()
    for volume in pod["spec"].get("volumes", ()):
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            references.add(("PersistentVolumeClaim", claim))
        if "configMap" in volume:
            references.add(("ConfigMap", volume["configMap"]["name"]))
    container = container_of(pod)
    for source in container.get("envFrom", ()):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source:
                references.add((kind, source[key]["name"]))
    for row in container.get("env", ()):
        if "secretKeyRef" in row.get("valueFrom", {}):
            references.add(("Secret", row["valueFrom"]["secretKeyRef"]["name"]))
    return references


def test_a_pod_listens_at_least_on_its_own_port(documents: list[Document]) -> None:
    for service, pod in our_pods(documents).values():
        assert LISTEN in listen_variables(variables_of(pod, documents)), service
