"""The components `tls`, `tls-keda` and `keys`: what pods and clients need of them.

Not checked here: that cert-manager and KEDA take their resources, whose schemas are not at hand.
"""

from __future__ import annotations

import os
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kustomized import (
    K8S,
    Document,
    container_of,
    kustomized,
    of_kind,
    pods_of,
    service_of,
    variables_of,
)
from penstock.rpc.callers import CALLS, INSTANCE
from penstock.service.tls_files import AUTHORITIES_FILE, CERTIFICATE_FILE, KEY_FILE
from services_file import FILE, host_port
from settings_read import variables_read

FOREIGN = {"Issuer", "Certificate", "ScaledObject", "TriggerAuthentication"}
MOUNT = "/etc/penstock-tls"
LOOPBACK = "127.0.0.1"


@pytest.fixture
def documents(tmp_path: Path) -> list[Document]:
    """The dev overlay with everything over TLS."""
    k8s = os.path.relpath(K8S, tmp_path)
    content = {
        "namespace": "penstock",
        "resources": [f"{k8s}/overlays/dev"],
        "components": [f"{k8s}/components/{name}" for name in ("upstream", "tls", "tls-keda")],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return kustomized(tmp_path)


def certificates_by_secret(documents: list[Document]) -> dict[str, Document]:
    return {
        document["spec"]["secretName"]: document["spec"]
        for document in of_kind(documents, "Certificate")
    }


def our_pods(documents: list[Document]) -> dict[str, tuple[str, Document]]:
    """Service and template of each of our pods, by the pod's name."""
    pods = pods_of(documents).items()
    return {name: (service, pod) for name, pod in pods if (service := service_of(pod))}


def secret_at(pod: Document, path: str) -> str:
    """The secret that a pod has mounted there, to be read only."""
    (mount,) = (row for row in container_of(pod)["volumeMounts"] if row["mountPath"] == path)
    assert mount["readOnly"]
    (volume,) = (row for row in pod["spec"]["volumes"] if row["name"] == mount["name"])
    name: str = volume["secret"]["secretName"]
    return name


def test_manifests_fit_their_schemas(documents: list[Document]) -> None:
    for document in documents:
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, "1.31", strict=True)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "penstock"


def test_every_pod_reads_a_certificate_of_its_own(documents: list[Document]) -> None:
    pods = our_pods(documents)
    secrets = [secret_at(pod, MOUNT) for _, pod in pods.values()]
    assert len({*secrets}) == len(pods)
    assert {*secrets} <= certificates_by_secret(documents).keys()
    for service, pod in pods.values():
        variables = variables_of(pod, documents)
        assert variables["PENSTOCK_TLS_DIR"] == MOUNT
        assert set(variables) - {"POD_IP"} <= variables_read(service), service


def test_a_certificate_names_its_service_and_no_other(documents: list[Document]) -> None:
    certificates = certificates_by_secret(documents)
    identities = {*CALLS, INSTANCE}
    for service, pod in our_pods(documents).values():
        own = {service, INSTANCE} if FILE.services[service].registers else {service}
        spec = certificates[secret_at(pod, MOUNT)]
        assert identities & {*spec["dnsNames"]} == own
        assert {"server auth", "client auth"} <= {*spec["usages"]}
        assert spec["ipAddresses"] == [LOOPBACK], "probes call there"
        assert spec["issuerRef"] == {"name": "penstock"}


def test_clients_in_the_cluster_find_the_name_that_they_call(documents: list[Document]) -> None:
    certificates = certificates_by_secret(documents)
    for name, (service, pod) in our_pods(documents).items():
        if "anyone" in FILE.services[service].open_to.values():
            names = {*certificates[secret_at(pod, MOUNT)]["dnsNames"]}
            assert {name, f"{name}.penstock.svc"} <= names


def test_the_authority_issues_for_the_namespace(documents: list[Document]) -> None:
    issuers = {row["metadata"]["name"]: row["spec"] for row in of_kind(documents, "Issuer")}
    authority = certificates_by_secret(documents)[issuers["penstock"]["ca"]["secretName"]]
    assert authority["isCA"]
    assert "selfSigned" in issuers[authority["issuerRef"]["name"]]


def test_no_probe_and_no_service_says_plaintext(documents: list[Document]) -> None:
    for service, pod in our_pods(documents).values():
        container = container_of(pod)
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            if FILE.services[service].protocol == "grpc":
                assert probe["exec"]["command"] == ["python", "-m", "penstock.hosting.probe"]
            elif "httpGet" in probe:
                assert probe["httpGet"]["scheme"] == "HTTPS"
    protocols = [
        port["appProtocol"]
        for document in of_kind(documents, "Service")
        for port in document["spec"]["ports"]
        if "appProtocol" in port
    ]
    assert {*protocols} == {"https"}


def test_keda_calls_the_scaler_with_a_certificate_that_names_no_service(
    documents: list[Document],
) -> None:
    certificates = certificates_by_secret(documents)
    (scaled,) = of_kind(documents, "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    (authentication,) = of_kind(documents, "TriggerAuthentication")
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    rows = authentication["spec"]["secretTargetRef"]
    assert {row["parameter"]: row["key"] for row in rows} == {
        "caCert": AUTHORITIES_FILE,
        "tlsClientCert": CERTIFICATE_FILE,
        "tlsClientKey": KEY_FILE,
    }
    (secret,) = {row["name"] for row in rows}
    assert not {*CALLS, INSTANCE} & {*certificates[secret]["dnsNames"]}
    _, scaler = our_pods(documents)["scaler"]
    host, _ = host_port(trigger["metadata"]["scalerAddress"])
    assert host in certificates[secret_at(scaler, MOUNT)]["dnsNames"]


def test_operators_reach_the_service_of_keys_and_no_pod_does(documents: list[Document]) -> None:
    port = FILE.services["router"].ports["keys"]
    _, router = our_pods(documents)["router"]
    assert variables_of(router, documents)["PENSTOCK_KEYS_LISTEN"].endswith(f":{port}")
    (service,) = (
        row for row in of_kind(documents, "Service") if row["metadata"]["name"] == "router"
    )
    assert port in {row["port"] for row in service["spec"]["ports"]}
    opened = {
        row["port"]
        for policy in of_kind(documents, "NetworkPolicy")
        for rule in policy["spec"]["ingress"]
        for row in rule["ports"]
    }
    assert port not in opened
