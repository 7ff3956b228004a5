"""The Open Inference Protocol at an instance and at a router before it, over gRPC and HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.bench.kserve.conformance import PEERS_PYTHON, run_conformance

ROOT = Path(__file__).parents[2]


@pytest.mark.standard_case(32)
async def test_clients_of_the_protocol_find_what_they_expect(home: Path) -> None:
    found = await run_conformance(home, ROOT / PEERS_PYTHON)
    assert not found.failures
    assert found.cases >= 100
