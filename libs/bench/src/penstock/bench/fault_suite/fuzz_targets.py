"""What is fuzzed: every RPC of the services in one virtual-time loop, and what reads foreign bytes.

A target takes random bytes or messages, and returns what is wrong with how they were taken: an
answer INTERNAL or UNKNOWN, an exception that is not the documented one, or a call past its
deadline. None means that all is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np
from gguf import GGUFWriter
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from penstock.api.cache.v1 import cache_pb2
from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.bench.fault_suite.fuzz_messages import mutated, parsed, random_message
from penstock.limiter.api.envoy_service import EnvoyServicer
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.models.gguf_file import read_gguf
from penstock.onnx.card import BadModel, read_card
from penstock.prices.prices import PricesSection
from penstock.rpc.call import Call, Principal
from penstock.rpc.dispatch import rpcs_of
from penstock.rpc.errors import Fault
from penstock.rpc.item_session import Session
from penstock.rpc.peers.in_process import InProcessPeer
from penstock.service.clock import Clock
from penstock.service.settings import BadConfig, load_section
from penstock.simulation.store_server import Life
from penstock.simulation.system import System
from penstock.telemetry.detection.incidents import IncidentTracker
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.ingest.exports import ExportReceiver, Signal, signals
from penstock.telemetry.ingest.reading import read_protobuf
from penstock.telemetry.spans.redaction import ContentPolicy
from penstock.telemetry.store import TelemetryStore

DEADLINE_S = 1.0
BAD_CODES = frozenset(("INTERNAL", "UNKNOWN"))
BAD_NUMBERS = frozenset((2, 13))
CALLER = Principal("steady", "team", "user", "steady", ("tag",))
Target = Callable[[Random], Awaitable[str | None]]
"""One input; says what is wrong with how it was taken."""
Peers = Callable[[ServiceDescriptor], InProcessPeer]


@dataclass(frozen=True)
class Named:
    """A target and its name in the log."""

    name: str
    target: Target


def rpc_targets(system: System, service: ServiceDescriptor, peer: Any) -> Iterator[Named]:
    """One target for each RPC of a service: random messages, and mutations of their bytes."""
    for rpc in rpcs_of(service).values():
        yield Named(f"{service.name}/{rpc.name}", _Rpc(system, peer, rpc))


class _Rpc:
    def __init__(self, system: System, peer: Any, rpc: Any) -> None:
        self._system, self._peer, self._rpc = system, peer, rpc

    async def __call__(self, rng: Random) -> str | None:
        request = random_message(self._rpc.request, rng)
        if rng.random() < 0.3:
            data = mutated(request.SerializeToString(), rng)
            request = parsed(self._rpc.request, data) or request
        began_s = self._system.clock.monotonic()
        wrong = await self._called(request, began_s + DEADLINE_S)
        if wrong is None and self._system.clock.monotonic() > began_s + DEADLINE_S + 0.05:
            wrong = "past its deadline"
        return f"{wrong}: {request.SerializeToString().hex()}" if wrong else None

    async def _called(self, request: Message, deadline_s: float) -> str | None:
        call = Call(CALLER, deadline_s=deadline_s)
        try:
            if not self._rpc.streams:
                await self._peer.call(self._rpc.name, request, call)
                return None
            async with contextlib.aclosing(
                self._peer.stream(self._rpc.name, request, call)
            ) as answers:
                async for _ in answers:
                    pass
        except Fault as fault:
            return f"{fault.code.name} {fault}" if fault.code.name in BAD_CODES else None
        return None


def otlp_targets(clock: Clock) -> Iterator[Named]:
    """The bytes of exports as they come over gRPC and HTTP."""
    detection = DetectionPipeline((), IncidentTracker(()))
    store = TelemetryStore(clock, 1 << 20, detection, max_series_bytes=1 << 20)
    receiver = ExportReceiver(store, ContentPolicy(()), None, 10_000)
    for signal in signals(receiver):
        yield Named(f"OTLP{signal.path}", _otlp_target(signal))


def _otlp_target(signal: Signal) -> Target:
    async def target(rng: Random) -> str | None:
        data = random_message(signal.request, rng).SerializeToString()
        if rng.random() < 0.5:
            data = mutated(data, rng)
        try:
            await signal.take(read_protobuf(signal.request, data))
        except Fault as fault:
            return f"{fault}: {data.hex()}" if fault.code.name in BAD_CODES else None
        except Exception as error:
            return f"{type(error).__name__} {error}: {data.hex()}"
        return None

    return target


def rls_target(system: System, section: LimitsSection) -> Named:
    """Envoy's rate limit requests, on the simulated store."""
    store = LedgerStore(system.ledger.opening(Life())(""), system.clock)
    limiter = LimiterServicer(LimiterSettings(), section, PricesSection(), store, system.clock)
    servicer = EnvoyServicer(limiter, store)

    async def target(rng: Random) -> str | None:
        request: Any = random_message(rls.RateLimitRequest, rng)
        data = request.SerializeToString().hex()
        try:
            await servicer.ShouldRateLimit(request, _RlsContext())
        except Refused:
            return None
        except Exception as error:
            return f"{type(error).__name__} {error}: {data}"
        return None

    return Named("Envoy RLS", target)


class Refused(Exception):
    """A call that was ended with a clear status."""


class _RlsContext:
    """The part of grpc.aio's context that the servicer uses."""

    def time_remaining(self) -> float:
        return DEADLINE_S

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        if code.name in BAD_CODES:
            raise RuntimeError(f"{code.name} {details}")
        raise Refused(details)


def config_target(sections: dict[str, type[Any]], examples: list[str]) -> Named:
    """Configuration files: examples with lines and characters changed."""

    async def target(rng: Random) -> str | None:
        data = mutated(rng.choice(examples).encode(), rng)
        name = rng.choice(list(sections))
        with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
            file.write(data)
            file.flush()
            path = Path(file.name)
            return _taken(lambda: load_section(path, name, sections[name]), data, (BadConfig,))

    return Named("YAML", target)


def file_targets(card: bytes) -> Iterator[Named]:
    """Model files that users bring: mutations of a GGUF file and of a model's card."""
    gguf = _tiny_gguf()

    async def read_file(rng: Random) -> str | None:
        data = mutated(gguf, rng)
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(data)
            file.flush()
            return _taken(lambda: read_gguf(Path(file.name)), data[:512], (BadModel,))

    async def read_folder(rng: Random) -> str | None:
        data = mutated(card, rng)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "card.json").write_bytes(data)
            return _taken(lambda: read_card(Path(folder)), data, (BadModel,))

    yield Named("GGUF", read_file)
    yield Named("model folder", read_folder)


def _tiny_gguf() -> bytes:
    """A GGUF file with some entries and a tensor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        writer = GGUFWriter(path, "llama")
        for name in ("block_count", "embedding_length", "context_length", "attention.head_count"):
            writer.add_uint32(f"llama.{name}", 2)
        writer.add_string("tokenizer.ggml.model", "gpt2")
        writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ab"])
        writer.add_tensor("token_embd.weight", np.ones((4, 8), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _taken(
    take: Callable[[], object], data: bytes, allowed: tuple[type[Exception], ...]
) -> str | None:
    try:
        take()
    except allowed as error:
        is_bad = isinstance(error, Fault) and error.code.name in BAD_CODES
        return f"{error}: {data.hex()}" if is_bad else None
    except Exception as error:
        return f"{type(error).__name__} {error}: {data.hex()}"
    return None


def frame_target(system: System) -> Named:
    """Frames of the cache's item stream: random items, ids, cancellations and credits."""
    service = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
    exchange = service.methods_by_name["Exchange"]
    sent, answered = (GetMessageClass(kind) for kind in (exchange.input_type, exchange.output_type))
    methods = [*rpcs_of(service), "Exchange", "Nothing", ""]

    def frame(rng: Random) -> Any:
        made: Any = random_message(sent, rng)
        for item in made.items:
            item.method = rng.choice(methods)
            item.context.remaining_ms = rng.choice((-1, 0, 1, 200))
            item.context.principal.organisation = rng.choice(("", "steady"))
        return made

    async def target(rng: Random) -> str | None:
        local = system.endpoint("cache", service)
        wire = _Wire([frame(rng) for _ in range(rng.randint(1, 4))])
        session = Session(local.dispatcher, answered, system.clock, Call.from_context)
        data = " ".join(each.SerializeToString().hex() for each in wire.frames)
        try:
            async with asyncio.timeout(60.0):
                await session.run(wire, None)
        except Fault as fault:
            return f"{fault}: {data}" if fault.code.name in BAD_CODES else None
        except Exception as error:
            return f"{type(error).__name__} {error}: {data}"
        bad = [one for one in wire.statuses if one in BAD_NUMBERS]
        return f"{bad[0]}: {data}" if bad else None

    return Named("item stream frames", target)


class _Wire:
    """The context of a stream: gives frames, then its end, and takes what is written."""

    def __init__(self, frames: list[Any]) -> None:
        self.frames = frames
        self.statuses: list[int] = []
        self._next = iter(frames)

    async def read(self) -> Any:
        await asyncio.sleep(0)
        return next(self._next, None)

    async def write(self, frame: Any) -> None:
        self.statuses += [
            result.status.code for result in frame.results if result.HasField("status")
        ]
