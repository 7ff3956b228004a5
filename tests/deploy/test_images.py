"""deploy/Dockerfile: what an image gets, against deploy/services.yaml and the members' projects.

Not checked here: that the images build, because there is no container engine.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from penstock.stack.process import GRPC_EXPERIMENTS
from services_file import FILE, ROOT

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
OURS = "penstock-"
NOT_IN_IMAGES = {"torch", "transformers", "onnxruntime-gpu"}
NOT_IN_SERVICES = {"bench", "models", "stack", "testkit", "simulation"}


def default_extras() -> frozenset[str]:
    match = re.search(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert match
    return frozenset(match[1].split(","))


def requirements_of(name: str, extras: frozenset[str], service: str) -> Iterable[Requirement]:
    """What a distribution requires: ours by their folders, others by what is installed here."""
    if not name.startswith(OURS):
        return [Requirement(text) for text in distribution(name).requires or ()]
    member = name.removeprefix(OURS)
    folder = ROOT / ("services" if member == service else "libs") / member
    return project_requirements(folder, extras)


def project_requirements(folder: Path, extras: frozenset[str]) -> list[Requirement]:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {})
    rows = [*project["dependencies"], *(row for extra in extras for row in optional.get(extra, ()))]
    return [Requirement(row) for row in rows]


def installed_with(service: str) -> set[str]:
    """Every distribution that the image of a service gets."""
    waiting = [(OURS + service, default_extras())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = row = waiting.pop()
        if row in seen:
            continue
        seen.add(row)
        for requirement in requirements_of(name, extras, service):
            marker = requirement.marker
            if not marker or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return {name for name, _ in seen}


@pytest.mark.parametrize("service", sorted(FILE.services))
def test_an_image_gets_the_libraries_of_its_entry_and_no_torch(service: str) -> None:
    names = installed_with(service)
    ours = {name.removeprefix(OURS) for name in names if name.startswith(OURS)} - {service}
    assert ours == FILE.libraries_of(service)
    assert not names & NOT_IN_IMAGES
    assert not ours & NOT_IN_SERVICES
    assert ("onnxruntime" in names) == ("onnx" in ours)
    assert ("kubernetes" in names) == (service == "scaler")


def test_the_image_builds_the_libraries_that_any_service_needs() -> None:
    built = set(re.findall(r"\./libs/([a-z]+)", DOCKERFILE))
    assert built == {name for service in FILE.services for name in FILE.libraries_of(service)}


def test_the_image_copies_what_exists() -> None:
    sources = re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE)
    assert sources
    for source in sources:
        assert (ROOT / source.replace("${SERVICE}", "router")).exists(), source


def test_the_image_runs_unprivileged_and_polls_as_the_supervisor_does() -> None:
    assert DOCKERFILE.rindex("USER 10001") > DOCKERFILE.rindex("RUN ")
    assert f"GRPC_EXPERIMENTS={GRPC_EXPERIMENTS}" in DOCKERFILE
