"""The hall: configuration, models, runner, server. `python -m penstock.inference_onnx_quantized`."""

from __future__ import annotations

import asyncio

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.core.auth import internal
from penstock.core.clock import SystemClock
from penstock.core.door import Door
from penstock.core.errors import Fault
from penstock.core.exporting import start_telemetry
from penstock.core.program import CannotStart, run
from penstock.core.registration import Registrar
from penstock.core.server import Server
from penstock.inference_onnx_quantized.config import InferenceSettings
from penstock.inference_onnx_quantized.kserve import NAME as KSERVE
from penstock.inference_onnx_quantized.kserve import KServeServicer
from penstock.inference_onnx_quantized.load import LoadMeter
from penstock.inference_onnx_quantized.repository import Repository
from penstock.inference_onnx_quantized.runner import Runner
from penstock.inference_onnx_quantized.servicer import InferenceServicer
from penstock.onnx.card import BadModel
from penstock.onnx.loading import load_model

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
            telemetry=telemetry,
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


def _registrar(settings: InferenceSettings, address: str, servicer: InferenceServicer) -> Registrar | None:
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
        settings.router_address, instance, settings.internal_token, servicer.load, models=servicer.models
    )
    registrar.start()
    return registrar


def main() -> None:
    run("inference-onnx-quantized", InferenceSettings, serve, "What does the model say?")


if __name__ == "__main__":
    main()
