"""Which RPCs are background work and of which kind, so that they are not mistaken for requests.

A long poll takes as long as nothing happens; a registration or a probe is asked for by nobody who
waits for an answer. Their durations are counted under a metric of their own, their spans carry
`penstock.background` with the kind, and none of them begins a trace or is exported for being slow.
"""

from __future__ import annotations

import functools

LONG_POLL = "long_poll"
REGISTRATION = "registration"
EXPORT = "export"
PROBE = "probe"
QUERY = "query"
"""A question of a person or of the scaler about the system itself."""
BATCH = "batch"
"""A batch of many requests, each of which has a span of its own."""
FOLLOW_UP = "follow_up"
"""What follows an answer that has left, such as storing it."""

BACKGROUND_METHODS = {
    "CacheService/ListKeys": LONG_POLL,
    "RouterService/WatchJob": LONG_POLL,
    "TelemetryService/WatchIncidents": LONG_POLL,
    "TelemetryService/WatchRequests": LONG_POLL,
    "Health/Watch": LONG_POLL,
    "/StreamIsActive": LONG_POLL,
    "/Exchange": LONG_POLL,
    "RegistryService/": REGISTRATION,
    "/AttachInstance": REGISTRATION,
    "/DetachInstance": REGISTRATION,
    "InferenceService/ListModels": REGISTRATION,
    "LogsService/Export": EXPORT,
    "MetricsService/Export": EXPORT,
    "ProfilesService/Export": EXPORT,
    "TraceService/Export": EXPORT,
    "Health/Check": PROBE,
    "ServerReflection/": PROBE,
    "ExternalScaler/": PROBE,
    "/ServerLive": PROBE,
    "/ServerReady": PROBE,
    "/ModelReady": PROBE,
    "TelemetryService/": QUERY,
    "ScalerService/": QUERY,
    "/GetScoreboard": QUERY,
    "/GetStats": QUERY,
    "/GetTradeOff": QUERY,
    "/GetUsage": QUERY,
    "/ListModels": QUERY,
    "/ListQueues": QUERY,
    "/ComputeBatch": BATCH,
    "CacheService/StoreAll": FOLLOW_UP,
}
"""Kind by a part of the RPC's name; the first that the name contains decides."""

FOLLOW_UP_METHODS = (
    "CacheService/Store",
    "LimiterService/Commit",
    "LimiterService/Extend",
    "LimiterService/GrantLease",
    "LimiterService/Release",
    "LimiterService/RenewLease",
    "LimiterService/ReturnLease",
    "LimiterService/SettleRun",
)
"""RPCs that belong to a request where they have a parent, and follow one where they have none."""

PROBE_PATHS = frozenset(
    ("/health", "/healthz", "/livez", "/metrics", "/ping", "/ready", "/readyz", "/v2/health")
)
"""HTTP paths that probes and scrapers ask for, without a slash at the end."""


@functools.lru_cache(maxsize=4096)
def background_kind(name: str) -> str:
    """The kind of background work that spans of this name are; empty for a request.

    `name` is an RPC's, with or without its package, or an HTTP method and path.
    """
    for part, kind in BACKGROUND_METHODS.items():
        if part in name:
            return kind
    return PROBE if _is_probe(name) else ""


@functools.lru_cache(maxsize=4096)
def background_root_kind(name: str) -> str:
    """The same for the root of a trace, which no request caused."""
    kind = background_kind(name)
    if kind:
        return kind
    return FOLLOW_UP if any(method in name for method in FOLLOW_UP_METHODS) else ""


def _is_probe(name: str) -> bool:
    _, _, path = name.rpartition(" ")
    path = path.partition("?")[0].rstrip("/")
    return path in PROBE_PATHS or path.startswith("/v2/health/")
