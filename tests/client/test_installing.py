"""What `pip` and type checkers learn about the client: dependencies, types, documented methods."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path

from packaging.requirements import Requirement
from penstock.client import Penstock, errors

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "libs/api/src/penstock/api/router/v1"
README = ROOT / "libs/client/README.md"


def requirements(library: str) -> dict[str, Requirement]:
    """The dependencies of a library by name."""
    project = tomllib.loads((ROOT / "libs" / library / "pyproject.toml").read_text())["project"]
    return {parsed.name: parsed for parsed in map(Requirement, project["dependencies"])}


def test_the_api_requires_a_protobuf_runtime_that_its_stubs_accept() -> None:
    generated = re.search(
        r"ValidateProtobufRuntimeVersion\(\s*\S+,\s*(\d+),\s*(\d+),\s*(\d+)",
        (STUBS / "router_pb2.py").read_text(),
    )
    assert generated is not None
    major, minor, patch = map(int, generated.groups())
    accepted = requirements("api")["protobuf"].specifier
    assert f"{major}.{minor}.{patch}" in accepted
    assert f"{major}.{minor - 1}.0" not in accepted
    assert f"{major + 2}.0.0" not in accepted


def test_the_api_requires_the_grpcio_that_its_stubs_were_generated_for() -> None:
    generated = re.search(
        r"GRPC_GENERATED_VERSION = '(.+)'", (STUBS / "router_pb2_grpc.py").read_text()
    )
    assert generated is not None
    assert str(requirements("api")["grpcio"].specifier) == f">={generated[1]}"


def test_the_client_and_the_stubs_are_typed() -> None:
    for package in ("penstock.client", "penstock.api"):
        assert files(package).joinpath("py.typed").is_file()


def test_the_readme_names_every_method_and_every_error() -> None:
    text = README.read_text()
    methods = {name for name in vars(Penstock) if not name.startswith("_")} - {"close", "run"}
    assert [name for name in methods if f"`{name}" not in text] == []
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.PenstockError)
    }
    assert [name for name in kinds if f"`{name}`" not in text] == []
