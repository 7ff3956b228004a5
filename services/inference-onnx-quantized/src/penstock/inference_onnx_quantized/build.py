"""The assembly of an instance: models, compute threads, and both inference services on one port,
KServe over HTTP on another.
"""

from __future__ import annotations

import asyncio

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.hosting.assembly import Assembly
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.registration import Registration
from penstock.hosting.service import Port, Service
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.api.loaded_models import LoadedModels
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads, LoadMeter
from penstock.inference_onnx_quantized.repository import ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.kserve.grpc_service import NAME as KSERVE
from penstock.kserve.grpc_service import add_to
from penstock.kserve.inference import DEFAULT_DEADLINE_S, Inference
from penstock.onnx.card import BadModel
from penstock.onnx.loading import load_model
from penstock.rpc.auth import services_only
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.service.program import CannotStart

NAME = "inference-onnx-quantized"
SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]


def build(settings: InferenceSettings, outside: Outside) -> Service:
    """Make the instance. Its `open` loads the models, and raises CannotStart where one cannot be
    loaded.
    """
    clock = outside.clock
    repository = ModelRepository(
        settings.home / "models",
        settings.memory_budget_bytes,
        lambda folder: load_model(
            folder, 1, settings.providers, decoder_threads=settings.decoder_threads
        ),
    )
    meter = LoadMeter(settings.compute_threads)
    threads = ComputeThreads(settings.compute_threads, meter, clock)
    servicer = InferenceServicer(settings, repository, threads, meter, clock, outside.telemetry)
    models = LoadedModels(settings, repository, servicer, clock)
    kserve = Inference(models, clock, DEFAULT_DEADLINE_S)
    endpoint = Endpoint(
        SERVICE,
        servicer,
        services_only(SERVICE, settings.tokens, address=lambda: settings.advertise or port.address),
    )
    serves_kserve = settings.kserve != "off"
    port = GrpcServer(
        NAME,
        settings,
        [endpoint],
        foreign=[lambda server: add_to(server, kserve)] if serves_kserve else [],
        foreign_names=[KSERVE] if serves_kserve else [],
        tracer=outside.telemetry,
        clock=clock,
    )
    registration = Registration(
        settings.registry_address or settings.router_address,
        lambda address: _instance(settings, servicer, address),
        outside.dial,
        clock,
        load=servicer.load,
        models=servicer.models,
    )

    async def close() -> None:
        threads.close()

    return Service(
        NAME,
        [*_http_ports(settings, kserve), port],
        [endpoint],
        open=lambda: asyncio.to_thread(_load_all, repository, settings),
        ready=registration.start,
        drain=registration.leave,
        close=close,
    )


def _http_ports(settings: InferenceSettings, kserve: Inference) -> list[Port]:
    """The port of KServe over HTTP, where there is to be one; only then is its library loaded."""
    if settings.kserve == "off" or not settings.kserve_http_listen:
        return []
    from penstock.hosting.http_port import HttpPort
    from penstock.kserve.http_service import app_of

    return [
        HttpPort(
            settings.kserve_http_listen,
            app_of(kserve),
            "PENSTOCK_KSERVE_HTTP_LISTEN",
            shared=bool(settings.cell),
            tls=settings.tls,
        )
    ]


def _load_all(repository: ModelRepository, settings: InferenceSettings) -> None:
    for name in settings.models:
        try:
            repository.load(name)
        except (BadModel, Fault) as error:
            raise CannotStart(f"model {name}: {error}") from None


def _instance(
    settings: InferenceSettings, servicer: InferenceServicer, address: str
) -> router_pb2.Instance:
    """How the instance presents itself to the router."""
    return router_pb2.Instance(
        id=settings.instance_id,
        address=settings.advertise or address,
        batcher_address=settings.batcher_address,
        models=servicer.models(),
        concurrency=settings.compute_threads,
        microusd_per_hour=settings.microusd_per_hour,
        tenancy=router_pb2.TENANCY_SPOT if settings.spot else router_pb2.TENANCY_ON_DEMAND,
        zone=settings.zone,
    )


ASSEMBLY = Assembly(NAME, InferenceSettings, build, "What does the model say?")
