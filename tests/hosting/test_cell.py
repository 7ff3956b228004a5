"""Services in one process: they call each other without a wire, drain in order and reload
together.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from penstock.api.inference.v1 import inference_pb2
from penstock.hosting.assembly import Assembly
from penstock.hosting.cell import Member, prepare_all, serving_together
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.service import Service, reloading
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect
from penstock.rpc.reasons import Reason
from penstock.service.free_ports import free_address
from penstock.service.logs import SERVICE
from penstock.service.program import CannotStart
from penstock.service.settings import BadConfig, ServiceSettings
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import TOKEN

REQUEST = inference_pb2.ComputeRequest()


class Called(EmptyInstance):
    """Remembers what it was given, and for which service its process says that it works."""

    def __init__(self) -> None:
        self.requests: list[object] = []
        self.services: list[str] = []

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.requests.append(request)
        self.services.append(SERVICE.get())
        return inference_pb2.ComputeResponse()


class Pair:
    """`caller`, which dials `called` and calls it once more when it closes; and their events."""

    def __init__(self, token: str = TOKEN) -> None:
        self.events: list[str] = []
        self.servicer = Called()
        self.peers: list[Peer] = []
        self.address = free_address()
        caller = ServiceSettings(listen="127.0.0.1:0", internal_token=token, drain_s=0)
        called = ServiceSettings(listen=self.address, drain_s=0)
        self.members = [
            Member(Assembly("caller", ServiceSettings, self._caller, ""), caller),
            Member(Assembly("called", ServiceSettings, self._called, ""), called),
        ]

    @property
    def peer(self) -> Peer:
        (peer,) = self.peers
        return peer

    def _caller(self, settings: ServiceSettings, outside: Outside) -> Service:
        self.peers.append(outside.dial(self.address.replace("127.0.0.1", "localhost"), INFERENCE))

        async def close() -> None:
            self.events.append("caller closes")
            await self.peer.call("Compute", REQUEST, Call())
            await self.peer.close()

        async def opened() -> None:
            self.events.append("caller opens")

        return Service("caller", [GrpcServer("caller", settings, [])], open=opened, close=close)

    def _called(self, settings: ServiceSettings, outside: Outside) -> Service:
        authenticate, uncopied = internal(TOKEN), frozenset({"Compute"})
        endpoint = Endpoint(INFERENCE, self.servicer, authenticate, uncopied=uncopied)
        port = GrpcServer("called", settings, [endpoint])

        async def close() -> None:
            self.events.append("called closes")

        async def opened() -> None:
            self.events.append("called opens")

        return Service("called", [port], [endpoint], open=opened, close=close)


async def test_a_call_to_an_address_of_the_cell_has_no_wire() -> None:
    pair = Pair()
    async with serving_together(pair.members):
        await pair.peer.call("Compute", REQUEST, Call())
        assert pair.servicer.requests[0] is REQUEST
        assert pair.servicer.services == ["called"]


async def test_the_port_stays_open_for_others() -> None:
    pair = Pair()
    async with serving_together(pair.members):
        outsider = connect(pair.address, INFERENCE, token=TOKEN)
        await outsider.call("Compute", REQUEST, Call())
        await outsider.close()
        assert pair.servicer.services == ["called"]


async def test_callers_start_last_and_stop_first() -> None:
    pair = Pair()
    async with serving_together(pair.members):
        pass
    assert pair.events == ["called opens", "caller opens", "caller closes", "called closes"]
    assert len(pair.servicer.requests) == 1, "the called service served until its caller had closed"


@pytest.mark.threat("a service of the same process without the token")
async def test_a_service_of_the_cell_needs_the_token_too() -> None:
    pair = Pair(token="another")
    with pytest.raises(Fault) as at_the_end:
        async with serving_together(pair.members):
            with pytest.raises(Fault) as caught:
                await pair.peer.call("Compute", REQUEST, Call())
    assert caught.value.reason == at_the_end.value.reason == Reason.UNAUTHENTICATED
    assert not pair.servicer.requests


async def test_a_service_that_cannot_start_stops_those_that_have() -> None:
    def refuse(settings: ServiceSettings, outside: Outside) -> Service:
        raise CannotStart("no")

    pair = Pair()
    refusing = Member(Assembly("caller", ServiceSettings, refuse, ""), ServiceSettings())
    with pytest.raises(CannotStart):
        async with serving_together([refusing, pair.members[1]]):
            pass
    assert pair.events == ["called opens", "called closes"]


class Receiver(metrics_service_pb2_grpc.MetricsServiceServicer):
    """An OTLP receiver that remembers which service exported which metric."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, str]] = []

    async def Export(
        self,
        request: metrics_service_pb2.ExportMetricsServiceRequest,
        context: grpc.aio.ServicerContext,
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        for resource in request.resource_metrics:
            attributes = {
                each.key: each.value.string_value for each in resource.resource.attributes
            }
            for scope in resource.scope_metrics:
                name = attributes["service.name"]
                self.metrics += [(name, metric.name) for metric in scope.metrics]
        return metrics_service_pb2.ExportMetricsServiceResponse()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = grpc.aio.server()
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(None)


async def test_the_metrics_of_the_process_are_exported_once() -> None:
    pair, receiver = Pair(), Receiver()
    async with receiver.serving() as endpoint:
        exporting = [
            Member(member.assembly, member.settings.model_copy(update={"otlp_endpoint": endpoint}))
            for member in pair.members
        ]
        async with serving_together(exporting):
            pass  # what was measured is exported at the end
    memory = [name for name, metric in receiver.metrics if metric == "process.memory.usage"]
    assert memory == ["cell"]
    exporting_services = {name for name, _ in receiver.metrics}
    assert {"caller", "called"} <= exporting_services


class Reloading:
    """A service that reads a value that its file holds, and refuses `wrong`."""

    def __init__(self) -> None:
        self.file = self.in_force = "old"
        prepare = reloading(self._checked, self._take)
        self.service = Service("reloading", [], prepare_reload=prepare)

    def _checked(self) -> str:
        if self.file == "wrong":
            raise BadConfig(["limits: wrong"])
        return self.file

    def _take(self, value: str) -> None:
        self.in_force = value


def test_a_new_file_is_in_force_in_every_service_once_all_have_checked_it() -> None:
    first, second = Reloading(), Reloading()
    first.file = second.file = "new"
    apply = prepare_all([first.service, second.service])
    assert (first.in_force, second.in_force) == ("old", "old")
    apply()
    assert (first.in_force, second.in_force) == ("new", "new")


def test_no_service_takes_a_file_that_one_refuses() -> None:
    first, second, third = Reloading(), Reloading(), Reloading()
    first.file, second.file, third.file = "new", "wrong", "wrong"
    with pytest.raises(BadConfig) as caught:
        prepare_all([first.service, second.service, third.service])
    assert caught.value.problems == ["limits: wrong"], "a problem of several is said once"
    assert [each.in_force for each in (first, second, third)] == ["old", "old", "old"]
