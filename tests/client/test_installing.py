"""What `pip` is told about the client: versions that its stubs really run with, and types for
whoever checks theirs.
"""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "libs/api/src/penstock/api/router/v1"


def asked(library: str) -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "libs" / library / "pyproject.toml").read_text())["project"]
    return {found.name: found for found in map(Requirement, project["dependencies"])}


def test_stubs_ask_for_the_runtime_that_they_refuse_to_run_without() -> None:
    made_for = re.search(
        r"ValidateProtobufRuntimeVersion\(\s*\S+,\s*(\d+),\s*(\d+),\s*(\d+)",
        (STUBS / "router_pb2.py").read_text(),
    )
    assert made_for is not None
    major, minor, patch = map(int, made_for.groups())
    protobuf = asked("api")["protobuf"].specifier
    assert f"{major}.{minor}.{patch}" in protobuf
    assert f"{major}.{minor - 1}.0" not in protobuf
    assert f"{major + 2}.0.0" not in protobuf
    generated = re.search(
        r"GRPC_GENERATED_VERSION = '(.+)'", (STUBS / "router_pb2_grpc.py").read_text()
    )
    assert generated is not None
    assert str(asked("api")["grpcio"].specifier) == f">={generated[1]}"


def test_the_client_and_the_stubs_are_typed() -> None:
    assert all(
        files(name).joinpath("py.typed").is_file() for name in ("penstock.client", "penstock.api")
    )


def test_every_example_of_the_readme_names_what_is_there() -> None:
    from penstock.client import Penstock, errors

    text = (ROOT / "libs/client/README.md").read_text()
    methods = {name for name in vars(Penstock) if not name.startswith("_")} - {"close", "run"}
    assert all(f"`{name}" in text for name in methods), methods
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.PenstockError)
    }
    assert all(f"`{name}`" in text for name in kinds)
