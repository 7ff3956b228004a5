"""Kubernetes manifests as kustomize renders them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from services_file import ROOT

Document = dict[str, Any]
NAME_LABEL = "app.kubernetes.io/name"
K8S = ROOT / "deploy/k8s"


def overlay(name: str) -> list[Document]:
    """The documents of an overlay."""
    return kustomized(K8S / "overlays" / name)


@functools.cache
def _rendered(folder: Path) -> str:
    command = ["kubectl", "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def kustomized(folder: Path) -> list[Document]:
    """The documents of a folder; skips the test where kubectl is not installed."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed here")
    return [document for document in yaml.safe_load_all(_rendered(folder)) if document]


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    """The documents of some kinds."""
    return [document for document in documents if document["kind"] in kinds]


def pods_of(documents: list[Document]) -> dict[str, Document]:
    """The pod templates by their name label."""
    templates = [
        document["spec"]["template"] for document in of_kind(documents, "Deployment", "StatefulSet")
    ]
    return {template["metadata"]["labels"][NAME_LABEL]: template for template in templates}


def container_of(pod: Document) -> Document:
    """A pod's only container."""
    (container,) = pod["spec"]["containers"]
    found: Document = container
    return found


def service_of(pod: Document) -> str | None:
    """The service that a pod runs, or None for an image that is not ours."""
    image: str = container_of(pod)["image"]
    if not image.startswith("penstock/"):
        return None
    return image.removeprefix("penstock/").removesuffix("-gpu")


def variables_of(pod: Document, documents: list[Document]) -> dict[str, str]:
    """The environment of a pod's container; values from secrets and fields are empty."""
    container = container_of(pod)
    variables: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            name = source["configMapRef"]["name"]
            (config_map,) = (
                document
                for document in of_kind(documents, "ConfigMap")
                if document["metadata"]["name"] == name
            )
            variables |= config_map["data"]
    return variables | {row["name"]: row.get("value", "") for row in container.get("env", ())}
