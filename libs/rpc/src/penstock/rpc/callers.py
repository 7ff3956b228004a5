"""Which service may call which: deploy/services.yaml as data, which every internal port enforces.

A test of `tests/deploy` compares the two. An identity is a service's name, as its certificate or
its token says it.
"""

from __future__ import annotations

from collections.abc import Mapping

OPERATOR = "operator"
"""A person or a tool with the operators' token or certificate; may call every service."""
INSTANCE = "inference"
"""What every kind of instance is called as: its certificate has this name beside its own."""
CALLS: Mapping[str, frozenset[str]] = {
    "edge": frozenset({"router"}),
    "router": frozenset({"batcher", "cache", "limiter"}),
    "cache": frozenset(),
    "limiter": frozenset(),
    "batcher": frozenset(),
    "inference-onnx-quantized": frozenset({"router"}),
    "inference-upstream": frozenset({"router"}),
    "scaler": frozenset({"batcher", "router", "telemetry"}),
    "telemetry": frozenset(),
    "console": frozenset({"batcher", "cache", "limiter", "router", "scaler", "telemetry"}),
}
"""By service: whom it calls."""
REGISTERS = frozenset({"inference-onnx-quantized", "inference-upstream"})
"""Services that register with the router, and are called by router and batcher."""
REGISTRY = "penstock.api.router.v1.RegistryService"
REGISTRY_CALLERS = frozenset({*REGISTERS, "scaler"})
"""Others that call the router do so as clients, at its public port."""
DRAIN_OTHERS = frozenset({"scaler", OPERATOR})
"""Who may drain an instance that it has not registered."""
SERVED_BY: Mapping[str, str] = {
    "penstock.api.batcher.v1.BatcherService": "batcher",
    "penstock.api.cache.v1.CacheService": "cache",
    "penstock.api.inference.v1.InferenceService": INSTANCE,
    "penstock.api.limiter.v1.LimiterService": "limiter",
    REGISTRY: "router",
    "penstock.api.router.v1.RouterService": "router",
    "penstock.api.scaler.v1.ScalerService": "scaler",
    "penstock.api.telemetry.v1.TelemetryService": "telemetry",
}
"""Who serves a protobuf service, by its full name: those of internal ports, and the router's own,
to which the edge proves what it is.
"""


def callers_of(rpc_service: str) -> frozenset[str]:
    """The identities that may call a protobuf service; operators only where none is listed."""
    callee = SERVED_BY.get(rpc_service, "")
    if callee == INSTANCE:
        return frozenset({"batcher", "router", OPERATOR})
    if rpc_service == REGISTRY:
        return REGISTRY_CALLERS | {OPERATOR}
    return frozenset({OPERATOR, *(each for each, called in CALLS.items() if callee in called)})


def calls_of(service: str) -> frozenset[str]:
    """Whom a service calls, instances included, by the names that their certificates have."""
    instances = {INSTANCE} if service in ("batcher", "router") else set()
    return CALLS[service] | instances
