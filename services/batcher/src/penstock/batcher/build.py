"""The assembly of the batcher, as production, tests and benchmarks use it."""

from __future__ import annotations

from penstock.api.batcher.v1 import batcher_pb2
from penstock.batcher.api.batcher_service import BatcherServicer
from penstock.batcher.instance import INFERENCE
from penstock.batcher.settings import BatcherSettings, BatchingSection
from penstock.hosting.assembly import Assembly
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.service import Service, reloading
from penstock.rpc.auth import services_only
from penstock.rpc.endpoint import Endpoint
from penstock.service.settings import load_section

NAME = "batcher"
UNCOPIED = frozenset({"Compute", "ComputeStream"})
"""A request waits in a queue only while its call does, and each response is made anew."""
IN_CALLERS_TASK = frozenset({"Compute"})
"""A request that is cancelled leaves the queue, or the instance, and waits for neither."""
SERVICE = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]


def build(settings: BatcherSettings, outside: Outside) -> Service:
    """Make the batcher.

    Raises:
        BadConfig: the `batching` section of the file has an unknown key or a bad value.
    """
    servicer = BatcherServicer(
        _section(settings),
        lambda address: outside.dial(address, INFERENCE),
        outside.clock,
        outside.telemetry,
    )
    authenticate = services_only(SERVICE, settings.tokens)
    endpoint = Endpoint(
        SERVICE, servicer, authenticate, uncopied=UNCOPIED, in_callers_task=IN_CALLERS_TASK
    )
    port = GrpcServer(NAME, settings, [endpoint], tracer=outside.telemetry, clock=outside.clock)
    return Service(
        NAME,
        [port],
        [endpoint],
        close=servicer.close,
        prepare_reload=reloading(lambda: _section(settings), servicer.reload),
    )


def _section(settings: BatcherSettings) -> BatchingSection:
    return load_section(settings.config_file, "batching", BatchingSection)


ASSEMBLY = Assembly(
    NAME,
    BatcherSettings,
    build,
    "Close the batch now, or wait? Who goes first?",
    owns_instances=True,
)
