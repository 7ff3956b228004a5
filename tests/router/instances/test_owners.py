"""Which batcher an instance is called through: that of the router at which it registered, and while
that one does not answer, the router's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.instances.backends import OWNER_PAUSE_S, Backends
from penstock.router.instances.registry import Registry
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.store import embedded_store, open_store
from penstock.tasks.kinds import kind_of
from penstock.testkit.clock import FakeClock

from .instances import LOAD, SETTINGS, instance

TASK = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["hello"]))
KIND = kind_of(TASK)
REQUEST = ResolvedRequest(pb.CallOptions(), KIND, TASK, "m", KIND.estimate(TASK))
OWN, OTHER = "unix:/cells/1.sock", "unix:/cells/2.sock"


class Batcher:
    """A batcher as its callers see it: what it was asked, and whether it answers."""

    def __init__(self) -> None:
        self.responds = True
        self.asked: list[str] = []
        self.gone = False
        self.instance_gone = False

    async def call(self, method: str, request: Message, call: Call) -> Any:
        self.asked.append(method)
        if self.gone or (self.instance_gone and method == "Compute"):
            raise unavailable("connection refused")
        if method == "Compute":
            return batcher_pb2.ComputeResponse(result=inference_pb2.TaskResult(revision="1"))
        if method == "DetachInstance":
            return batcher_pb2.DetachInstanceResponse()
        return batcher_pb2.AttachInstanceResponse()

    def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""


class Cells:
    """The batchers of two cells, as the router of the first one calls them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.batchers = {OWN: Batcher(), OTHER: Batcher()}
        self.backends = Backends(self._dial, OWN, self.clock)

    def _dial(self, address: str, service: ServiceDescriptor) -> Batcher:
        return self.batchers[address]

    async def compute(self, at: pb.Instance) -> None:
        await self.backends.compute(at, REQUEST, Call())


@pytest.fixture
def cells() -> Cells:
    return Cells()


OWNED_ELSEWHERE = instance(batcher_address=OTHER)


async def test_an_instance_of_another_cell_is_called_through_that_cells_batcher(
    cells: Cells,
) -> None:
    await cells.compute(OWNED_ELSEWHERE)
    assert cells.batchers[OTHER].asked == ["AttachInstance", "Compute"]
    assert cells.batchers[OWN].asked == []


async def test_where_the_owner_has_gone_the_next_try_goes_through_the_own_batcher(
    cells: Cells,
) -> None:
    await cells.compute(OWNED_ELSEWHERE)
    cells.batchers[OTHER].gone = True
    with pytest.raises(Fault) as caught:
        await cells.compute(OWNED_ELSEWHERE)
    assert caught.value.reason is Reason.OWNER_GONE
    await cells.compute(OWNED_ELSEWHERE)
    assert cells.batchers[OWN].asked == ["AttachInstance", "Compute"]


async def test_an_owner_that_has_gone_is_asked_again_after_a_pause(cells: Cells) -> None:
    cells.batchers[OTHER].gone = True
    with pytest.raises(Fault):
        await cells.compute(OWNED_ELSEWHERE)
    cells.batchers[OTHER].gone = False
    await cells.clock.advance(OWNER_PAUSE_S + 1)
    await cells.compute(OWNED_ELSEWHERE)
    assert cells.batchers[OWN].asked == []


async def test_an_instance_that_has_gone_does_not_speak_against_its_owner(cells: Cells) -> None:
    cells.batchers[OTHER].instance_gone = True
    with pytest.raises(Fault) as caught:
        await cells.compute(OWNED_ELSEWHERE)
    assert caught.value.reason is Reason.UNAVAILABLE
    cells.batchers[OTHER].instance_gone = False
    await cells.compute(OWNED_ELSEWHERE)
    assert cells.batchers[OWN].asked == []


async def test_an_instance_is_given_up_at_every_batcher_that_had_it(cells: Cells) -> None:
    await cells.compute(OWNED_ELSEWHERE)
    await cells.compute(instance(batcher_address=OWN))
    await cells.backends.detach("a")
    assert [batcher.asked[-1] for batcher in cells.batchers.values()] == ["DetachInstance"] * 2


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded_store(tmp_path / "store") as url, open_store(url) as client:
        yield client


MakeRegistry = Callable[[str], Registry]


@pytest.fixture
def make_registry(store: redis.asyncio.Redis) -> MakeRegistry:
    """Makes the registry of a router with a batcher at an address."""
    clock = FakeClock()

    def make(batcher: str) -> Registry:
        settings = SETTINGS.model_copy(update={"batcher_address": batcher})
        return Registry(settings, store, clock)

    return make


async def test_the_router_at_which_an_instance_registers_names_its_batcher(
    make_registry: MakeRegistry,
) -> None:
    first, second = make_registry(OWN), make_registry(OTHER)
    await first.register(instance("a"))
    await first.register(instance("b", batcher_address="batcher.elsewhere:7073"))
    await second.read_shared()
    named = {name: each.batcher_address for name, each in second.registered.items()}
    assert named == {"a": OWN, "b": "batcher.elsewhere:7073"}


async def test_an_instance_belongs_to_the_router_to_which_it_has_moved(
    make_registry: MakeRegistry,
) -> None:
    first, second = make_registry(OWN), make_registry(OTHER)
    await first.register(instance("a"))
    await second.read_shared()
    assert not await second.heartbeat("a", LOAD), "it is told to register again"
    await second.register(instance("a"))
    assert await second.heartbeat("a", LOAD)
    await first.read_shared()
    assert first.registered["a"].batcher_address == OTHER
    assert not await first.heartbeat("a", LOAD)
