"""The hall: configuration, models, runner, server.

`python -m penstock.inference_onnx_quantized`.
"""

from __future__ import annotations

import asyncio

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.api.kserve_service import NAME as KSERVE
from penstock.inference_onnx_quantized.api.kserve_service import KServeServicer
from penstock.inference_onnx_quantized.load import LoadMeter
from penstock.inference_onnx_quantized.repository import Repository
from penstock.inference_onnx_quantized.runner import Runner
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.onnx.card import BadModel
from penstock.onnx.loading import load_model
from penstock.otel.start import start_telemetry
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.errors import Fault
from penstock.rpc.registration import Registrar
from penstock.rpc.server import Server
from penstock.service.clock import SystemClock
from penstock.service.program import CannotStart, run

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]


async def serve(settings: InferenceSettings) -> None:
    """Serve until told to stop."""
    clock = SystemClock()
    async with start_telemetry("inference-onnx-quantized", settings) as telemetry:
        repository = Repository(
            settings.home / "models",
            settings.memory_budget_bytes,
            lambda folder: load_model(folder, 1, settings.providers),
        )
        await asyncio.to_thread(_load_all, repository, settings)
        meter = LoadMeter(settings.compute_threads)
        runner = Runner(settings.compute_threads, meter, clock)
        servicer = InferenceServicer(settings, repository, runner, meter, clock, telemetry)
        door = Door(SERVICE, servicer, internal(settings.internal_token))
        kserve = KServeServicer(settings, repository, runner, meter, clock, servicer.load)
        shown = settings.kserve != "off"
        server = Server(
            "inference-onnx-quantized",
            settings,
            [door],
            foreign=[kserve.add_to] if shown else [],
            foreign_names=[KSERVE] if shown else [],
            tracer=telemetry,
            clock=clock,
        )
        await server.start()
        registrar = _registrar(settings, server.address, servicer)
        await server.wait(before_stop=registrar.leave if registrar else None)
        runner.close()


def _load_all(repository: Repository, settings: InferenceSettings) -> None:
    for name in settings.models:
        try:
            repository.load(name)
        except (BadModel, Fault) as error:
            raise CannotStart(f"model {name}: {error}") from None


def _registrar(
    settings: InferenceSettings, address: str, servicer: InferenceServicer
) -> Registrar | None:
    if not settings.router_address:
        return None
    instance = router_pb2.Instance(
        id=settings.instance_id,
        address=settings.advertise or address,
        batcher_address=settings.batcher_address,
        models=servicer.models(),
        concurrency=settings.compute_threads,
        microusd_per_hour=settings.microusd_per_hour,
        tenancy=router_pb2.TENANCY_SPOT if settings.spot else router_pb2.TENANCY_ON_DEMAND,
        zone=settings.zone,
    )
    registrar = Registrar(
        settings.router_address,
        instance,
        settings.internal_token,
        servicer.load,
        models=servicer.models,
    )
    registrar.start()
    return registrar


def main() -> None:
    run("inference-onnx-quantized", InferenceSettings, serve, "What does the model say?")


if __name__ == "__main__":
    main()
