"""An instance's id belongs to the service that registered it."""

from __future__ import annotations

import pytest
from penstock.router.instances.ownership import Ownership
from penstock.rpc.errors import Fault
from penstock.service.clock import SystemClock


async def test_whoever_registered_may_register_and_speak_again() -> None:
    owners = Ownership(None, SystemClock())
    await owners.claim("one", "inference-upstream")
    await owners.claim("one", "inference-upstream")
    await owners.check("one", "inference-upstream")
    await owners.check("one", "scaler")


@pytest.mark.threat("stolen registration: another service takes an instance's id")
async def test_another_service_cannot_register_the_same_id() -> None:
    owners = Ownership(None, SystemClock())
    await owners.claim("one", "inference-upstream")
    with pytest.raises(Fault, match="registered by another service"):
        await owners.claim("one", "inference-onnx-quantized")
    await owners.claim("one", "inference-upstream")


@pytest.mark.threat("stolen registration: another service drains an instance")
async def test_another_service_cannot_renew_or_drain_it() -> None:
    owners = Ownership(None, SystemClock())
    await owners.claim("one", "inference-upstream")
    with pytest.raises(Fault, match="registered by another service"):
        await owners.check("one", "inference-onnx-quantized")
