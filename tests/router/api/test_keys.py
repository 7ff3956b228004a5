"""API keys at the public service: who may call, and as whom."""

from __future__ import annotations

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.router.keys import KeyRing, digest
from penstock.router.settings import KeySection, KeysSection
from penstock.rpc.call import Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.testkit.server import TOKEN

from ..rig import Rig, embed, fault_of
from ..routed import KEY, METADATA

ANN = KeySection(
    id="k1",
    sha256=digest("psk-ann"),
    organisation="acme",
    team="t",
    user="ann",
    tags=("x",),
    priority_ceiling="normal",
)
BOB = KeySection(id="k2", sha256=digest("psk-bob"), organisation="acme")


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", KEY),),
        (("authorization", f"Basic {KEY}"),),
        (("authorization", "Bearer "),),
        (("penstock-token", TOKEN),),
    ],
)
async def test_without_a_known_key_nobody_is_served(
    rig: Rig, metadata: tuple[tuple[str, str], ...]
) -> None:
    fault = await fault_of(rig.routed.stub.Embed(embed(), metadata=metadata))
    assert fault.reason is Reason.UNAUTHENTICATED
    assert "authorization: Bearer" in fault.message
    assert not any(instance.calls for instance in rig.instances.values())


@pytest.mark.fault(7)
async def test_a_caller_cannot_say_who_it_is(rig: Rig) -> None:
    forged = common_pb2.CallContext(
        principal=common_pb2.Principal(organisation="victim"), remaining_ms=1000
    )
    metadata = (*METADATA, ("penstock-context-bin", forged.SerializeToString()))
    await rig.routed.stub.Embed(embed(), metadata=metadata)
    assert rig.seen_call().principal.organisation == "acme"


def test_a_key_is_found_by_its_digest_and_gives_its_principal() -> None:
    keys = KeyRing([ANN, BOB])
    call = keys.authenticate({"authorization": "bearer  psk-ann ", "traceparent": "00-x"})
    assert call.principal == Principal("acme", "t", "ann", "k1", ("x",))
    assert call.traceparent == "00-x"


def test_keys_that_are_replaced_hold_from_then_on() -> None:
    keys = KeyRing([ANN])
    keys.replace([BOB])
    with pytest.raises(Fault, match="the API key is not known"):
        keys.authenticate({"authorization": "Bearer psk-ann"})
    assert keys.authenticate({"authorization": "Bearer psk-bob"}).principal.key_id == "k2"


LOW, NORMAL, HIGH, CRITICAL = 1, 2, 3, 4


@pytest.mark.parametrize(
    ("key", "asked", "given"),
    [
        (ANN, LOW, LOW),
        (ANN, HIGH, NORMAL),
        (ANN, 0, NORMAL),
        (BOB, CRITICAL, CRITICAL),
        (BOB, 0, NORMAL),
    ],
)
def test_a_call_gets_the_priority_that_it_asks_for_up_to_its_keys_ceiling(
    key: KeySection, asked: int, given: int
) -> None:
    keys = KeyRing([ANN, BOB])
    assert keys.capped(Principal("acme", key_id=key.id), asked) == given


@pytest.mark.parametrize(
    ("second", "wrong"),
    [
        ({"id": "k1", "sha256": "0" * 64}, "id stands twice: k1"),
        ({"id": "k9", "sha256": ANN.sha256}, "sha256 stands twice"),
    ],
)
def test_a_key_that_stands_twice_stops_the_start(second: dict[str, str], wrong: str) -> None:
    rows = [ANN.model_dump(), {"organisation": "acme", **second}]
    with pytest.raises(ValueError, match=wrong):
        KeysSection.model_validate({"api": rows})
