"""API keys at the public service: who may call, and as whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import keys_pb2
from penstock.router.identity.key_records import KeyRecord
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
    priority_ceiling="high",
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


@pytest.mark.threat("forged tenant")
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


def test_it_is_known_whether_a_credential_ends_by_itself() -> None:
    keys = KeyRing([ANN, BOB])
    assert not keys.may_expire
    keys.is_changed.clear()
    keys.replace([ANN.model_copy(update={"expires": datetime.now(UTC) + timedelta(hours=1)})])
    assert keys.may_expire and keys.is_changed.is_set()
    keys.replace([BOB])
    assert not keys.may_expire
    rotated = KeyRecord(keys_pb2.Key(id="k3", overlap_ends_unix_ms=1), bytes(32))
    keys.replace_records(b"secret", {"k3": rotated})
    assert keys.may_expire


LOW, NORMAL, HIGH, CRITICAL = 1, 2, 3, 4


@pytest.mark.parametrize(
    ("key", "asked", "given"),
    [
        (ANN, LOW, LOW),
        (ANN, HIGH, HIGH),
        (ANN, CRITICAL, HIGH),
        (ANN, 0, NORMAL),
        (BOB, CRITICAL, NORMAL),
        (BOB, 0, NORMAL),
    ],
)
@pytest.mark.threat("forged priority")
def test_a_call_gets_the_priority_that_it_asks_for_up_to_its_keys_ceiling(
    key: KeySection, asked: int, given: int
) -> None:
    keys = KeyRing([ANN, BOB])
    who = keys.authenticate({"authorization": "Bearer psk-" + (key.user or "bob")}).principal
    assert keys.grant(who).priority(asked) == given


@pytest.mark.threat("removed key")
def test_a_key_that_is_not_there_permits_nothing() -> None:
    keys = KeyRing([ANN])
    with pytest.raises(Fault) as refused:
        keys.grant(Principal("acme", key_id="k2"))
    assert refused.value.reason is Reason.UNAUTHENTICATED


@pytest.mark.threat("stolen key id")
def test_a_key_that_comes_back_for_another_organisation_serves_no_caller_of_the_first() -> None:
    keys = KeyRing([ANN])
    ann = keys.authenticate({"authorization": "Bearer psk-ann"}).principal
    keys.replace([ANN.model_copy(update={"organisation": "other"})])
    with pytest.raises(Fault):
        keys.grant(ann)


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
