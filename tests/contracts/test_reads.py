"""The table of docs/reads.md: every RPC has a row, every row a test, and internal ports refuse
strangers.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from penstock.rpc import auth, operators
from penstock.rpc.auth import internal
from penstock.rpc.errors import Fault
from penstock.rpc.operators import operator_authenticator
from penstock.rpc.reasons import Reason

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| `(?P<rpc>\w+\.\w+)` \| (?P<shown>[^|]+) \| `(?P<test>[^`]+)` \|")
ROWS = ROW.findall((ROOT / "docs" / "reads.md").read_text())


def contracts() -> list[FileDescriptor]:
    """The contracts that are Penstock's own."""
    protos = ROOT / "protos"
    files = sorted(file.relative_to(protos) for file in protos.glob("penstock/api/*/v1/*.proto"))
    for file in files:
        importlib.import_module(".".join(file.with_suffix("").parts) + "_pb2")
    return [descriptor_pool.Default().FindFileByName(str(file)) for file in files]


def test_every_rpc_has_one_row() -> None:
    rpcs = [
        f"{service.name}.{method.name}"
        for contract in contracts()
        for service in contract.services_by_name.values()
        for method in service.methods
    ]
    assert rpcs
    assert sorted(rpc for rpc, _, _ in ROWS) == sorted(rpcs)


@pytest.mark.parametrize("test", sorted({test for _, _, test in ROWS}))
def test_every_row_names_a_test_that_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text()


@pytest.mark.threat("call of an internal port without its identity")
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"penstock-token": ""},
        {"penstock-token": "secre"},
        {"penstock-token": "secret2"},
        {"authorization": "Bearer secret"},
    ],
)
@pytest.mark.parametrize("token", ["secret", ""])
def test_an_internal_endpoint_refuses_strangers(metadata: dict[str, str], token: str) -> None:
    with pytest.raises(Fault) as refused:
        internal(token)(metadata)
    assert refused.value.reason is Reason.UNAUTHENTICATED


@pytest.mark.threat("call of an operators' port without a secret")
@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret"])
def test_operators_ports_refuse_strangers(given: str) -> None:
    with pytest.raises(Fault) as refused:
        operator_authenticator({"secret": "olga"})({"authorization": given})
    assert refused.value.reason is Reason.UNAUTHENTICATED


@pytest.mark.threat("timing of comparisons of internal secrets")
@pytest.mark.parametrize("module", [auth, operators])
def test_secrets_of_ports_are_compared_in_constant_time(module: ModuleType) -> None:
    source = inspect.getsource(module)
    assert "hmac.compare_digest" in source
    assert not re.search(
        r"(==|!=) *(secret|expected|given)|(secret|expected|given) *(==|!=)", source
    )
